"""What each selection method reads, for planning: this module imports nothing.

``scores`` and ``embeddings`` come from other sections of a recipe, and ``scores_if_any`` takes scores only where the
recipe has them. Every other word is a field of ``select:``.
"""

FROM_OTHER_SECTIONS = frozenset({"scores", "scores_if_any", "embeddings"})

METHOD_NEEDS: dict[str, frozenset[str]] = {
    "deita": frozenset({"scores", "score", "embeddings", "threshold", "launch"}),
    "evol_score": frozenset({"scores"}),
    "complexity": frozenset({"scores"}),
    "quality": frozenset({"scores"}),
    "random": frozenset({"seed"}),
    "longest_response": frozenset(),
    "longest_instruction": frozenset(),
    "direct_score": frozenset({"column"}),
    "perplexity": frozenset({"column", "order"}),
    "ifd": frozenset({"column"}),
    "instag": frozenset({"column"}),
    "mig": frozenset({"column", "label_similarity", "scores", "score"}),
    "k_center": frozenset({"embeddings", "scores_if_any", "score"}),
    "kmeans": frozenset({"embeddings", "scores", "score", "clusters", "seed"}),
    "facility_location": frozenset({"embeddings", "scores", "score", "quality_weight"}),
    "whole_pool": frozenset(),
}


def needs_of(method: str, quality_weight: float) -> frozenset[str]:
    """What ``method`` reads with this ``quality_weight``: without one, facility location reads no scores."""
    needs = METHOD_NEEDS[method]
    return needs - {"scores", "score"} if "quality_weight" in needs and quality_weight == 0 else needs


def reads_scores(needs: frozenset[str]) -> bool:
    """Whether a method with these needs ranks by scores, where the pool has them."""
    return bool(needs & {"scores", "scores_if_any"})

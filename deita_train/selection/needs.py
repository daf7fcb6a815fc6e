"""What each selection method reads, for planning: this module imports nothing."""

METHOD_NEEDS: dict[str, frozenset[str]] = {
    "deita": frozenset({"scores", "embeddings"}),
    "evol_score": frozenset({"scores"}),
    "complexity": frozenset({"scores"}),
    "quality": frozenset({"scores"}),
    "random": frozenset({"seed"}),
    "longest_response": frozenset(),
    "whole_pool": frozenset(),
}

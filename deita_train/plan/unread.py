"""Sections of a recipe whose result no stage reads, so that it costs time, or money, for nothing."""

from collections.abc import Iterator

from deita_train.plan.plan import Plan
from deita_train.recipe.schema import Recipe

_SECTIONS = {
    "embed": "embedding",
    "perplexity": "perplexity",
    "direct_score": "direct_score",
    "instag": "instag",
    "score.complexity": "scorers.complexity",
    "score.quality": "scorers.quality",
    "rank.complexity": "evolve.complexity",
    "rank.quality": "evolve.quality",
}
"""The section whose result a stage is, of those that serve a selection alone."""


def unread_lines(plan: Plan) -> list[str]:
    """A line for each; where the recipe selects nothing, what a section makes is wanted for its own sake."""
    return [*_unread_results(plan), *_unasked_models(plan)]


def _unread_results(plan: Plan) -> list[str]:
    if not any("select" in cell.nodes for cell in plan.cells):
        return []
    read = {parent.key for node in plan.nodes for parent in node.parents.values()}
    method = plan.cells[0].nodes["select"].identity["method"] if "select" in plan.cells[0].nodes else None
    lines = []
    for node in plan.nodes:
        section = _SECTIONS.get(node.label)
        if section is not None and node.key not in read:
            lines.append(f"{section}: no stage reads it{_reason(section, method)}")
    return list(dict.fromkeys(lines))


def _reason(section: str, method: str | None) -> str:
    if section.startswith("evolve."):
        dimension = section.removeprefix("evolve.")
        return f" (scorers.{dimension}.train.data: evolve would)"
    return f" (select.method {method} needs none)" if method is not None else ""


def _unasked_models(plan: Plan) -> list[str]:
    """The endpoints under `llm:` that no section of any cell names."""
    recipes = [cell.recipe for cell in plan.loaded.cells]
    asked = {name for recipe in recipes for name in _asked_models(recipe)}
    names = dict.fromkeys(name for recipe in recipes for name in recipe.llm or {})
    return [f"llm.{name}: no section asks it" for name in names if name not in asked]


def _asked_models(recipe: Recipe) -> Iterator[str | None]:
    """The endpoints that the sections of a recipe name."""
    evaluate = recipe.evaluate
    for section in (recipe.evolve, recipe.direct_score, recipe.instag, evaluate):
        if section is not None:
            yield section.llm
    if evaluate is not None:
        for judged in (evaluate.judged, evaluate.mt_bench, evaluate.alpaca_eval):
            if judged is not None:
                yield judged.judge

"""Sections of a recipe whose result no stage reads, so that it costs time for nothing."""

from deita_train.plan.plan import Plan

_SECTIONS = {"embed": "embedding"}
_SCORES = "score."


def unread_lines(plan: Plan) -> list[str]:
    """A line for each; none where the recipe selects nothing, because then it is wanted for its own sake."""
    if not any("select" in cell.nodes for cell in plan.cells):
        return []
    read = {parent.key for node in plan.nodes for parent in node.parents.values()}
    method = plan.cells[0].nodes["select"].identity["method"] if "select" in plan.cells[0].nodes else None
    lines = []
    for node in plan.nodes:
        section = _section(node.label)
        if section is not None and node.key not in read:
            reason = f" (select.method {method} needs none)" if method is not None else ""
            lines.append(f"{section}: no stage reads it{reason}")
    return list(dict.fromkeys(lines))


def _section(label: str) -> str | None:
    """The section whose result a stage is, of those that serve a selection alone."""
    if label.startswith(_SCORES):
        return f"scorers.{label.removeprefix(_SCORES)}"
    return "perplexity" if label == "perplexity" else _SECTIONS.get(label)

"""Which stages can be made in parts, by processes that share nothing but the runs folder."""

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.stages.kinds import STAGE_KINDS

# In the identity of an embedding whose rows follow from the walk: block by block, so not all known beforehand.
_WALK = "walk"


def is_divided(node: Node) -> bool:
    """Whether a stage can be made in parts: batch inference over rows that are all known beforehand."""
    return STAGE_KINDS[node.kind].divides and _WALK not in node.identity


def refuse_undivided(node: Node) -> None:
    """Raise :class:`UserError` for a stage that is not made in parts."""
    if is_divided(node):
        return
    if STAGE_KINDS[node.kind].divides:
        raise UserError(
            f"--part: {node.label} embeds rows along the walk, block by block, and cannot be divided. State "
            "embedding.rows: all to embed every row in parts, or leave --part out."
        )
    kinds = ", ".join(name for name, kind in STAGE_KINDS.items() if kind.divides)
    raise UserError(
        f"--part: {node.label} is not made in parts; the kinds of stages that are: {kinds}. Leave --part out."
    )

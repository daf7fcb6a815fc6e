"""The order of the Repr Filter's walk over the rows that a stage embeds, where it embeds along the walk."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deita_train.budget import amount_of, budget_rows
from deita_train.errors import UserError
from deita_train.inference.batches import BatchPlan
from deita_train.selection.repr_filter.repr_filter import walk_order
from deita_train.stages.context import StageContext
from deita_train.stages.selecting.ranked_pool import candidates_of, counts, in_tokens, lengths_of, unranked

# Rows that follow one another in the walk and whose batches are planned together. So many fill several batches of
# similar length, and so many at most are embedded and not looked at. The number is the same for every budget: a row has
# the same batch, and so the same vector bit by bit, whatever else is embedded.
GROUP_ROWS = 256


@dataclass(frozen=True)
class WalkOrder:
    """The rows that the walk may look at, best first.

    Attributes:
        rows: int64 [W], their numbers among the rows that have inputs.
        scores: float64 [W].
        tokens: int64 [W], the training tokens of each, for a budget of tokens; else None.
        budget: rows, or training tokens.
    """

    rows: np.ndarray
    scores: np.ndarray
    tokens: np.ndarray | None
    budget: int

    @property
    def facts(self) -> dict[str, Any]:
        """For the plan's file."""
        tokens = {} if self.tokens is None else {"walk_tokens": self.tokens}
        return {"walk": self.rows, "walk_scores": self.scores, "walk_budget": self.budget, **tokens}

    @classmethod
    def planned(cls, plan: BatchPlan) -> "WalkOrder":
        """What the preparation found."""
        facts = plan.facts
        return cls(facts["walk"], facts["walk_scores"], facts.get("walk_tokens"), facts["walk_budget"])

    def groups(self, num_rows: int) -> np.ndarray:
        """The group of each of `num_rows` rows, int64: by its place in the walk, last those that cannot be ranked."""
        groups = np.full(num_rows, self.num_groups, dtype=np.int64)
        groups[self.rows] = np.arange(len(self.rows)) // GROUP_ROWS
        return groups

    @property
    def num_groups(self) -> int:
        """The groups that the walk goes through."""
        return -(-len(self.rows) // GROUP_ROWS)


def find_walk(context: StageContext, refused: Collection[int]) -> WalkOrder | None:
    """The order in which the selection would walk; None for a stage that is not planned along one.

    Args:
        context: of the stage, with the selection's parents beside its own.
        refused: positions of the pool's rows that have no inputs.

    Raises:
        UserError: no row can be ranked.
    """
    if "walk" not in context.runtime:
        return None
    context = replace(context, label="select", identity=context.runtime["walk"])
    lengths = lengths_of(context)
    pool = candidates_of(context, lengths)
    embedded = np.ones(len(pool.ids), dtype=bool)
    embedded[list(refused)] = False
    not_embedded = [None if there else "not_embedded" for there in embedded.tolist()]
    reasons = unranked(context, pool, not_embedded)
    places = np.flatnonzero([reason is None for reason in reasons])
    if not len(places):
        drops = Counter(filter(None, reasons))
        raise UserError(f"{context.label}: no row of the pool can be ranked: {counts(drops)}.")
    ids = pool.ids.at(places)
    order = walk_order(ids, pool.scores[places])
    numbers = (np.cumsum(embedded) - 1)[places[order]]
    budget = context.identity["budget"]
    if in_tokens(context):
        assert lengths is not None
        return WalkOrder(numbers, pool.scores[places[order]], lengths.tokens_of(ids)[order], int(amount_of(budget)))
    rows = budget_rows(budget, len(pool.ids))
    assert rows is not None
    return WalkOrder(numbers, pool.scores[places[order]], None, rows)

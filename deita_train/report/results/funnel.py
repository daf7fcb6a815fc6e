"""How many rows of the pool were left after each step, from those read to those trained on, and why others were not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from deita_train.report.results.rendered import trains_on_selection
from deita_train.report.results.summary import Artefact, Cell
from deita_train.selection.unrankable import IN_WORDS

READ, KEPT, TRAINED = "Read", "Kept", "Trained on by SFT"
# Reasons that are not a few plain words already.
_WORDS = {
    **IN_WORDS,
    "not_sampled": "not drawn from their source",
    "not_in_mix": "not drawn for the mix",
    "exact_copy": "exact copies of another row",
    "near_copy": "near copies of another row",
    "without_loss": "no token with loss",
    "held_out": "held out, as by the public code",
}


@dataclass(frozen=True)
class Step:
    """A step of the funnel.

    Attributes:
        name: what the rows that are left are.
        left: their number.
        lost: how many rows of the step before are not among them, by reason in words.
    """

    name: str
    left: int
    lost: Mapping[str, int]


def funnel_of(cell: Cell) -> list[Step]:
    """The steps from the rows read to those trained on, as far as the cell has them; none without a selection.

    Every step is what the one before left, less what it lost.
    """
    stages = cell.stages
    if "pool" not in stages or "select" not in stages:
        return []
    pool, select = stages["pool"], stages["select"]
    outside = pool.metrics.get("rows_outside_share", 0)  # which the manifest does not count as read
    read = Step(READ, pool.manifest["rows_in"] + outside, {})
    shares = {"outside the instruction share": outside} if outside else {}
    steps = [read, Step("Usable", pool.manifest["rows_out"], shares | _drops(pool))]
    if "clean_pool" in stages:
        cleaned = stages["clean_pool"]
        steps.append(Step("After cleaning", cleaned.manifest["rows_out"], _drops(cleaned)))
    steps += _selection(select)
    if "sft" in stages and trains_on_selection(cell):
        steps.append(Step(TRAINED, stages["sft"].manifest["rows_out"], _drops(stages["sft"])))
    _check(steps)
    return steps


def _selection(select: Artefact) -> list[Step]:
    """What could be selected, what the walk reached where the method walks, and what was kept."""
    drops, kept = select.manifest["drops"], select.manifest["rows_out"]
    unrankable = {IN_WORDS[reason]: number for reason, number in drops.items() if reason in IN_WORDS and number}
    candidates = Step("Could be selected", select.manifest["rows_in"] - sum(unrankable.values()), unrankable)
    if select.metric("threshold") is None:
        others = drops.get("not_selected", 0)
        return [candidates, Step(KEPT, kept, {"not selected": others} if others else {})]
    seen, rejected = select.metric("seen"), select.metric("rejected")
    ended = "not reached when the budget was met" if select.metric("budget_met") else "not reached"
    reached = Step("Reached by the walk", seen, {ended: candidates.left - seen})
    return [candidates, reached, Step(KEPT, kept, {"passed over, too similar to a kept row": rejected})]


def _drops(item: Artefact) -> dict[str, int]:
    drops = item.manifest["drops"]
    return {_WORDS.get(reason, reason.replace("_", " ")): number for reason, number in drops.items() if number}


def _check(steps: list[Step]) -> None:
    """Assert that the numbers of all steps add up."""
    for before, after in pairwise(steps):
        assert before.left == after.left + sum(after.lost.values()), f"{before} does not add up with {after}"
        assert min(after.lost.values(), default=0) >= 0, f"{after} lost fewer than no rows"

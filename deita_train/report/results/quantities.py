"""The quantities of the result: where each is read, what it is compared with, and how its values are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.report.results.groups import Estimate, Group, Reading
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.tables.formats import estimated, estimated_count

EVOL_SCORE = "mean evol score"
HIGHER, LOWER = "higher is better", "lower is better"
# The models of a recipe in the order of their making, by the last part of their labels.
TUNED = {"sft": "SFT", "dpo": "DPO"}

# What a column's direction means is known only for the columns of the built-in pool; others are shown without one.
DIRECTIONS = {"near_duplicate": LOWER, "true_quality": HIGHER, "win_probability": HIGHER}


@dataclass(frozen=True)
class Reference:
    """What a quantity is compared with: the value of ``read`` in an artefact of ``stage``."""

    stage: str
    read: Reading


@dataclass(frozen=True)
class Measure:
    """A quantity of the result: where it is read, and its value for the pool or the model before tuning."""

    title: str
    stage: str
    read: Reading
    reference: Reference | None = None
    direction: str = ""
    is_share: bool = False
    is_count: bool = False

    def text(self, value: Estimate | None) -> str:
        """``value`` as a table shows it."""
        return estimated_count(value) if self.is_count else estimated(value, self.is_share)

    def text_of(self, group: Group) -> str:
        """The group's value; where cells of it failed before this stage, also over how many of them it is."""
        made, planned = len(group.artefacts(self.stage)), group.num_planned(self.stage)
        if made == 0 and planned:
            return "failed"
        text = self.text(group.estimate(self.stage, self.read))
        return f"{text} ({made} of {planned})" if made < planned else text

    def reference_text(self, groups: Sequence[Group]) -> str:
        """The value of the reference; ``varies`` where the groups have different ones, empty where none has one."""
        if self.reference is None:
            return ""
        found = (group.estimate(self.reference.stage, self.reference.read) for group in groups)
        texts = {self.text(value) for value in found if value is not None}
        return "varies" if len(texts) > 1 else "".join(texts)

    def reference_value(self, groups: Sequence[Group]) -> float | None:
        """The value of the reference as a number, where all groups that have one have the same."""
        if self.reference is None:
            return None
        stage, read = self.reference.stage, self.reference.read
        values = {value for group in groups for value in group.values(stage, read)}
        return values.pop() if len(values) == 1 else None


def kept_measures(summary: RunSummary, groups: Sequence[Group]) -> list[Measure]:
    """The quantities of the selected rows that at least one group has."""
    shares = summary.trace.boolean_columns if summary.trace else frozenset()
    names = dict.fromkeys(name for group in groups for item in group.artefacts("select") for name in _columns(item))
    ordered = sorted(names, key=lambda name: name != "near_duplicate")
    rows_in = Reference("select", lambda item: float(item.metric("rows_in")))
    score = Reference("select", _score_mean("pool"))
    measures = [
        Measure("rows kept", "select", lambda item: item.metric("rows_out"), rows_in, is_count=True),
        *(_column_measure(name, name in shares or name == "near_duplicate") for name in ordered),
        Measure("planted duplicates rejected", "select", _caught_share, None, HIGHER, is_share=True),
        Measure(EVOL_SCORE, "select", _score_mean("selected"), score),
    ]
    return _present(measures, groups)


def model_measures(groups: Sequence[Group]) -> list[Measure]:
    """The quantities of the tuned models on held-out rows that at least one group has."""
    measures = [
        *(loss_measure(name) for name in TUNED),
        *(accuracy_measure(name) for name in TUNED),
        *(_margin_measure(name) for name in TUNED),
        Measure("reward accuracy of DPO", "evaluate_pairs.dpo", reward_accuracy, None, HIGHER, is_share=True),
        Measure("reward margin of DPO", "evaluate_pairs.dpo", _reward_margin, None, HIGHER),
    ]
    return _present(measures, groups)


def loss_measure(model: str) -> Measure:
    """Held-out loss of the model ``sft`` or ``dpo``, in nats per token."""
    title, stage = f"held-out loss after {TUNED[model]}", f"evaluate.{model}"
    return Measure(title, stage, heldout_loss, Reference("evaluate.base", heldout_loss), LOWER)


def accuracy_measure(model: str) -> Measure:
    """Share of held-out pairs whose chosen answer is the likelier one under the model ``sft`` or ``dpo``."""
    title, stage = f"preference accuracy after {TUNED[model]}", f"evaluate_pairs.{model}"
    reference = Reference("evaluate_pairs.base", pair_accuracy)
    return Measure(title, stage, pair_accuracy, reference, HIGHER, is_share=True)


def duplicate_measure() -> Measure:
    """Share of near-copies of other rows among the kept rows."""
    return _column_measure("near_duplicate", is_share=True)


def heldout_loss(artefact: Artefact) -> float:
    """Loss per token on the held-out rows, in nats."""
    return float(artefact.metric("heldout")["loss_per_token"])


def pair_accuracy(artefact: Artefact) -> float:
    """Share of the pairs whose chosen answer has the higher log-probability."""
    return float(artefact.metric("pairs")["accuracy"])


def reward_accuracy(artefact: Artefact) -> float | None:
    """Share of the pairs whose chosen answer has the higher implicit reward, where DPO has one."""
    rewards = artefact.metrics.get("rewards")
    return None if rewards is None else float(rewards["accuracy"])


def untuned_name(groups: Sequence[Group]) -> str:
    """What the untuned model is called: ``before SFT``, or ``before DPO`` in a run without SFT."""
    has_sft = any("sft" in cell.planned for group in groups for cell in group.cells)
    return "before SFT" if has_sft else "before DPO"


def _margin_measure(model: str) -> Measure:
    title, stage = f"preference margin after {TUNED[model]}", f"evaluate_pairs.{model}"
    return Measure(title, stage, _pair_margin, Reference("evaluate_pairs.base", _pair_margin), HIGHER)


def _pair_margin(artefact: Artefact) -> float:
    return float(artefact.metric("pairs")["margin"])


def _reward_margin(artefact: Artefact) -> float | None:
    rewards = artefact.metrics.get("rewards")
    return None if rewards is None else float(rewards["margin"])


def _present(measures: Sequence[Measure], groups: Sequence[Group]) -> list[Measure]:
    return [item for item in measures if any(group.values(item.stage, item.read) for group in groups)]


def _columns(item: Artefact) -> dict[str, dict[str, float]]:
    return dict(item.metric("columns"))


def _column_measure(name: str, is_share: bool) -> Measure:
    title = f"{name.replace('_', ' ')} share" if is_share else f"mean {name.replace('_', ' ')}"

    def reading(side: str) -> Reading:
        return lambda item: _columns(item).get(name, {}).get(side)

    reference = Reference("select", reading("pool"))
    return Measure(title, "select", reading("selected"), reference, DIRECTIONS.get(name, ""), is_share)


def _score_mean(side: str) -> Reading:
    """A method that does not score, such as random, may have no mean."""
    return lambda item: (item.metrics.get("score_mean") or {}).get(side)


def _caught_share(item: Artefact) -> float | None:
    duplicates = item.metrics.get("duplicates")
    return duplicates["rejected"] / duplicates["met"] if duplicates and duplicates["met"] else None

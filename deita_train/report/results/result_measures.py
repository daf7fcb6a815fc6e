"""The quantities of the result: where each is read, what it is compared with, and how its values are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.evaluation.results import Result
from deita_train.number_text import ABSENT
from deita_train.report.results.benchmarks import results_of
from deita_train.report.results.groups import Group, Reading
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.statistics import Estimate

EVOL_SCORE = "mean evol score"
HIGHER, LOWER = "higher is better", "lower is better"
# Metrics that not every artefact of their stage has: of models before DPO, of methods that read no scores.
_OPTIONAL = ("rewards", "score_mean")
# The models that a recipe tunes, in their order: the last part of their labels, and their names.
TUNED = {"sft": "SFT", "dpo": "DPO"}


def reading(metric: str, name: str) -> Reading:
    """Reads the value `name` of a metric that has several."""

    def read(item: Artefact) -> float | None:
        found = item.metrics.get(metric) if metric in _OPTIONAL else item.metric(metric)
        return None if found is None else found[name]

    return read


# Loss per token on the held-out rows, in nats; shares of the pairs whose chosen answer has the higher log-probability
# and the higher implicit reward.
heldout_loss = reading("heldout", "loss_per_token")
pair_accuracy = reading("pairs", "accuracy")
reward_accuracy = reading("rewards", "accuracy")


@dataclass(frozen=True)
class Reference:
    """What a quantity is compared with: what `read` finds in an artefact of `stage`."""

    stage: str
    read: Reading


@dataclass(frozen=True)
class Measure:
    """A quantity of the result: what `read` finds in the artefacts of `stage`.

    Attributes:
        title: its name in tables.
        reference: the same quantity of the pool or of the untuned model.
        direction: `HIGHER` or `LOWER`; empty where neither is known to be better, as of a pool's own columns.
    """

    title: str
    stage: str
    read: Reading
    reference: Reference | None = None
    direction: str = ""
    is_share: bool = False
    is_count: bool = False

    def values(self, group: Group) -> list[float]:
        """One value for each distinct artefact of the group that has one."""
        return group.values(self.stage, self.read)

    def estimate(self, group: Group) -> Estimate | None:
        """Mean and interval over the group's seeds; None where no artefact has a value."""
        return group.estimate(self.stage, self.read)

    def known(self, group: Group) -> Estimate:
        """The estimate of a group that is known to have one."""
        found = self.estimate(group)
        assert found is not None, f"{group.label} has no {self.title}"
        return found

    def reference_estimate(self, group: Group) -> Estimate | None:
        """The group's estimate of the reference."""
        return None if self.reference is None else group.estimate(self.reference.stage, self.reference.read)

    def text(self, value: Estimate | None) -> str:
        """An estimate as tables show it."""
        if value is None:
            return ABSENT
        return value.count_text() if self.is_count else value.share_text() if self.is_share else value.text()

    def text_of(self, group: Group) -> str:
        """The group's value; where some of its cells failed before this stage, also how many the value is over."""
        made, planned = len(group.artefacts(self.stage)), group.num_planned(self.stage)
        if made == 0 and planned:
            return "failed"
        text = self.text(self.estimate(group))
        return f"{text} ({made} of {planned})" if made < planned else text

    def reference_text(self, groups: Sequence[Group]) -> str:
        """The value of the reference; `varies` where the groups have different ones, empty where none has one."""
        texts = {self.text(value) for value in map(self.reference_estimate, groups) if value is not None}
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
    columns = dict.fromkeys(name for group in groups for item in group.artefacts("select") for name in _columns(item))
    shares = share_columns(summary)
    pool_rows = Reference("select", lambda item: item.metric("rows_in"))
    measures = [
        Measure("rows kept", "select", lambda item: item.metric("rows_out"), pool_rows, is_count=True),
        Measure("training tokens", "sft", lambda item: item.metrics.get("train_tokens"), is_count=True),
        *(column_measure(name, is_share=True) for name in columns if name in shares),
        *(column_measure(name, is_share=False) for name in columns if name not in shares),
        Measure(
            EVOL_SCORE, "select", reading("score_mean", "selected"), Reference("select", reading("score_mean", "pool"))
        ),
    ]
    return measured(measures, groups)


def model_measures(groups: Sequence[Group]) -> list[Measure]:
    """The quantities of the tuned models on held-out rows that at least one group has."""
    measures = [
        *map(loss_measure, TUNED),
        *map(accuracy_measure, TUNED),
        *map(_margin_measure, TUNED),
        Measure("reward accuracy of DPO", "evaluate_pairs.dpo", reward_accuracy, None, HIGHER, is_share=True),
        Measure("reward margin of DPO", "evaluate_pairs.dpo", reading("rewards", "margin"), None, HIGHER),
        *benchmark_measures(groups),
    ]
    return measured(measures, groups)


def benchmark_measures(groups: Sequence[Group]) -> list[Measure]:
    """The headline of every benchmark of the tuned models; a share or percentage as a share."""
    found: dict[str, Measure] = {}
    for group in groups:
        for cell in group.cells:
            for label, item in cell.stages.items():
                model = label.rpartition(".")[2]
                results = results_of(item)
                if model in TUNED and results and label not in found:
                    found[label] = _benchmark_measure(label, item, *next(iter(results.items())))
    return list(found.values())


def _benchmark_measure(label: str, item: Artefact, name: str, first: Result) -> Measure:
    benchmark, _, model = label.rpartition(".")
    read = figure_reading(name)
    direction = {True: HIGHER, False: LOWER, None: ""}[first.higher_is_better]
    title = f"{_benchmark_words(item, benchmark, name)} after {TUNED[model]}"
    is_share = first.unit in ("share", "percent")
    return Measure(title, label, read, Reference(f"{benchmark}.base", read), direction, is_share)


def figure_reading(name: str) -> Reading:
    """Reads a figure of a benchmark; a percentage as a share."""

    def read(of: Artefact) -> float | None:
        results = results_of(of)
        if name not in results:
            return None
        return results[name].value / 100 if results[name].unit == "percent" else results[name].value

    return read


def _benchmark_words(item: Artefact, benchmark: str, name: str) -> str:
    """A figure's name: a task's own, a rating's benchmark, or both where a benchmark has figures of several kinds."""
    title = str(item.metrics.get("title", benchmark))
    if benchmark == "lm_eval" and name != "mean":
        return name.replace("_", " ")
    return title if name in ("overall", "mean") else f"{title}, {name},"


def measured(measures: Sequence[Measure], groups: Sequence[Group]) -> list[Measure]:
    """Those of `measures` that at least one of `groups` has a value of."""
    return [item for item in measures if any(map(item.values, groups))]


def loss_measure(model: str) -> Measure:
    """Held-out loss of the model `sft` or `dpo`, in nats per token."""
    return _model_measure("held-out loss", "evaluate", model, heldout_loss, LOWER)


def accuracy_measure(model: str) -> Measure:
    """Share of held-out pairs whose chosen answer is the likelier one under the model `sft` or `dpo`."""
    return _model_measure("preference accuracy", "evaluate_pairs", model, pair_accuracy, HIGHER, is_share=True)


def share_columns(summary: RunSummary) -> list[str]:
    """The yes/no columns of the pool, whose means are shares, as far as the base run's selection measured them."""
    select = summary.base_cell.stages.get("select")
    if select is None or summary.trace is None:
        return []
    return [name for name in _columns(select) if name in summary.trace.boolean_columns]


def column_measure(name: str, *, is_share: bool) -> Measure:
    """Mean of one of the pool's own columns over the selected rows, compared with that over the pool."""

    def reading(side: str) -> Reading:
        return lambda item: _columns(item).get(name, {}).get(side)

    title = f"{name.replace('_', ' ')} share" if is_share else f"mean {name.replace('_', ' ')}"
    return Measure(title, "select", reading("selected"), Reference("select", reading("pool")), is_share=is_share)


def untuned_name(groups: Sequence[Group]) -> str:
    """What the untuned model is called: `before SFT`, or `before DPO` in a run without SFT."""
    has_sft = any("sft" in cell.planned for group in groups for cell in group.cells)
    return f"before {TUNED['sft' if has_sft else 'dpo']}"


def first_loss(own: Group) -> Measure | None:
    """Held-out loss of the first tuned model for which a group has one: after SFT, or after DPO without SFT."""
    return next((item for item in map(loss_measure, TUNED) if item.values(own)), None)


def last_accuracy(own: Group) -> Measure | None:
    """Preference accuracy of the last tuned model for which a group has one."""
    return next((item for item in map(accuracy_measure, reversed(TUNED)) if item.values(own)), None)


def model_before(own: Group, stage: str, untuned: str) -> tuple[str, str]:
    """The evaluation of the model from which the one evaluated in `stage` was tuned, and what that model is called."""
    evaluation = stage.partition(".")[0]
    before = f"{evaluation}.sft"
    return (before, "after SFT") if own.artefacts(before) and stage != before else (f"{evaluation}.base", untuned)


def best_rival(groups: Sequence[Group], item: Measure) -> Group | None:
    """The group with the lowest mean apart from the first; None where the first has no value."""
    found = [(item.known(group).mean, place, group) for place, group in enumerate(groups[1:]) if item.values(group)]
    return min(found)[2] if found and item.values(groups[0]) else None


def _model_measure(
    name: str, evaluation: str, model: str, read: Reading, direction: str, is_share: bool = False
) -> Measure:
    title, reference = f"{name} after {TUNED[model]}", Reference(f"{evaluation}.base", read)
    return Measure(title, f"{evaluation}.{model}", read, reference, direction, is_share)


def _margin_measure(model: str) -> Measure:
    return _model_measure("preference margin", "evaluate_pairs", model, reading("pairs", "margin"), HIGHER)


def _columns(item: Artefact) -> dict[str, dict[str, float]]:
    return dict(item.metric("columns"))

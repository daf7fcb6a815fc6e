"""What each stage was planned to cost and what it measured, its artefacts taken together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.report.results.summary import Artefact, RunSummary


@dataclass(frozen=True)
class StageCost:
    """The artefacts of a stage that were planned and have measured their work.

    Sums over them, but for memory, rate and MFU; what is not known is None.

    Attributes:
        name: the stage's label, with the number of artefacts where there are several.
        tokens_planned: with `mark`: `~` if estimated, `<` if at most.
        tokens: that were computed, over all epochs.
        operations_planned: floating-point operations.
        operations: those planned for one token times `tokens`.
        seconds: from the start to the published artefact.
        hours_planned: of all GPUs together.
        hours: wall hours times GPUs; None on a CPU.
        rate: tokens a second of all processes together, the mean.
        mfu: share of the GPUs' peak, the mean.
        memory_planned: bytes of one process, the highest.
        memory: the same as measured.
    """

    name: str
    mark: str
    tokens_planned: float
    tokens: float
    operations_planned: float | None
    operations: float | None
    seconds: float
    hours_planned: float | None
    hours: float | None
    rate: float | None
    mfu: float | None
    memory_planned: float | None
    memory: float | None


def stage_costs(summary: RunSummary) -> list[StageCost]:
    """One for each stage of which an artefact was planned and measured its work, in the order of the pipeline."""
    found: dict[str, list[Artefact]] = {}
    for label, item in summary.artefacts().values():
        planned = summary.planned_costs.get(item.id)
        if planned is not None and planned["tokens"] and measured_tokens(item) is not None:
            found.setdefault(label, []).append(item)
    return [_stage_cost(label, items, summary.planned_costs) for label, items in found.items()]


def measured_tokens(item: Artefact) -> float | None:
    """The tokens that a stage has computed, over all epochs of a training; None where it did not count them."""
    metrics = item.metrics
    if "train_tokens" not in metrics:
        tokens: float | None = metrics.get("tokens")
        return tokens
    trainer = item.manifest["config"].get("trainer", {})
    steps = trainer.get("max_steps") or 0
    if steps > 0:
        epochs = steps * item.manifest["config"]["global_batch_size"] / max(1, metrics["train_rows"])
    else:
        epochs = trainer.get("num_train_epochs", 3)
    return float(metrics["train_tokens"] * epochs)


def _stage_cost(label: str, items: Sequence[Artefact], costs: Mapping[str, Mapping[str, Any]]) -> StageCost:
    planned = [costs[item.id] for item in items]
    at_most, sampled = (any(of[name] for of in planned) for name in ("at_most", "sampled"))
    return StageCost(
        name=f"{label} ({len(items)} runs)" if len(items) > 1 else label,
        mark="<" if at_most else "~" if sampled else "",
        tokens_planned=sum(of["tokens"] for of in planned),
        tokens=sum(map(_tokens, items)),
        operations_planned=_sum(of["operations"] for of in planned),
        operations=_sum(map(_operations, items, planned)),
        seconds=sum(item.manifest["wall_seconds"] for item in items),
        hours_planned=_sum(of["gpu_hours"] for of in planned),
        hours=_sum(map(_hours, items)),
        rate=_mean(map(_rate, items)),
        mfu=_mean(item.metrics.get("mfu") for item in items),
        memory_planned=_most(of["memory"] for of in planned),
        memory=_most(map(_memory, items)),
    )


def _tokens(item: Artefact) -> float:
    tokens = measured_tokens(item)
    assert tokens is not None, item.id
    return tokens


def _operations(item: Artefact, planned: Mapping[str, Any]) -> float | None:
    each = None if planned["operations"] is None else planned["operations"] / planned["tokens"]
    return None if each is None else _tokens(item) * each


def _hours(item: Artefact) -> float | None:
    if item.manifest["device"] != "cuda":
        return None
    return float(item.manifest["wall_seconds"] * item.manifest["world_size"] / 3600)


def _rate(item: Artefact) -> float | None:
    each = item.metrics.get("tokens_per_second_per_device")
    return item.metrics.get("tokens_per_second") if each is None else each * item.manifest["world_size"]


def _memory(item: Artefact) -> float | None:
    measured = item.metrics.get("memory_gib")
    return None if measured is None else measured * 2**30


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where one is not known, for a part would look like the whole."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

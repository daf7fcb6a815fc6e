"""What stages were expected to cost, and what they took: work, time and memory, each in a table of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from deita_train.number_text import ABSENT, compact, decimals, duration, flop_unit, gpu_hours, share, significant
from deita_train.report.results.stage_costs import StageCost
from deita_train.table import Column, Table, numbers, words

RATIO = Column("measured / planned")

_WORK = (
    "Planned are the tokens that deita-train plan counted before the run: ~ is estimated from a sample of the rows, "
    "< is an upper bound; of a selection that was still to be made the longest rows are assumed. Measured are those "
    "that the stage computed, over all epochs, without padding. No device counts its FLOP: measured FLOP are the "
    "measured tokens times what the plan takes for one token."
)
_TIME = "Wall time runs from the start of a stage to its artefact, with the loading of models and data."
_HOURS = (
    " GPU hours are wall time times the number of GPUs; planned ones are of computing alone. Tokens per second are of "
    "all GPUs together while they compute, and MFU is the share of the GPUs' peak that this is."
)
_CPU = " Hours are planned for GPUs only. Tokens per second are of all processes together while they compute."
_MEMORY = (
    "Of one process at the fullest moment of a training. On a GPU these are its tensors; on a CPU the whole process "
    "with its libraries, about 1 GB, is measured, so that small models take far more than planned. Passes over data "
    "fill whatever memory there is with larger batches, and are not compared."
)


def cost_tables(stages: Sequence[StageCost]) -> list[Table]:
    """The tables; empty where no stage has both a plan and a measure."""
    if not stages:
        return []
    memory = _memory_table([of for of in stages if of.memory_planned is not None and of.memory is not None])
    return [_work_table(stages), _time_table(stages), *([] if memory is None else [memory])]


@dataclass(frozen=True)
class Total:
    """A planned and a measured amount of several stages, over those that have both; None where none has."""

    planned: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over planned."""
        return self.measured / self.planned if self.planned and self.measured is not None else None


def total_of(
    stages: Iterable[StageCost],
    planned: Callable[[StageCost], float | None],
    measured: Callable[[StageCost], float | None],
) -> Total:
    """The sums of what is planned and measured of an amount."""
    pairs = [(planned(of), measured(of)) for of in stages]
    known = [(first, second) for first, second in pairs if first is not None and second is not None]
    return Total(*(sum(values) for values in zip(*known, strict=True))) if known else Total(None, None)


def _work_table(stages: Sequence[StageCost]) -> Table:
    size, unit = flop_unit(max((of.operations_planned or 0.0 for of in stages), default=0.0) / 100)
    tokens = total_of(stages, lambda of: of.tokens_planned, lambda of: of.tokens)
    operations = total_of(stages, lambda of: of.operations_planned, lambda of: of.operations)
    rows = [
        (
            of.name,
            f"{of.mark}{compact(of.tokens_planned)}",
            compact(of.tokens),
            _ratio(of.tokens_planned, of.tokens),
            _divided(of.operations_planned, size),
            _divided(of.operations, size),
        )
        for of in stages
    ]
    marks = {of.mark for of in stages}
    mark = "<" if "<" in marks else "~" if "~" in marks else ""
    total = (
        "total", f"{mark}{compact(tokens.planned or 0)}", compact(tokens.measured or 0),
        _ratio(tokens.planned, tokens.measured), _divided(operations.planned, size),
        _divided(operations.measured, size),
    )  # fmt: skip
    columns = (*words("stage"), *numbers("tokens planned", "tokens measured"), RATIO)
    columns += numbers(f"{unit} planned", f"{unit} measured")
    return Table(columns, (*rows, total), "Work", _WORK, num_totals=1)


def _time_table(stages: Sequence[StageCost]) -> Table:
    """Hours and the share of the peak only where a GPU computed, or would have."""
    seconds = duration(sum(of.seconds for of in stages))
    if all(of.hours_planned is None and of.hours is None for of in stages):
        timed = tuple((of.name, duration(of.seconds), _rate(of)) for of in stages)
        columns = (*words("stage"), *numbers("wall time", "tokens per second"))
        return Table(columns, (*timed, ("total", seconds, "")), "Time", _TIME + _CPU, num_totals=1)
    hours = total_of(stages, lambda of: of.hours_planned, lambda of: of.hours)
    rows = tuple(
        (
            of.name,
            duration(of.seconds),
            gpu_hours(of.hours_planned),
            gpu_hours(of.hours),
            _ratio(of.hours_planned, of.hours),
            _rate(of),
            share(of.mfu),
        )
        for of in stages
    )
    total = (
        "total", seconds, gpu_hours(hours.planned), gpu_hours(hours.measured), _ratio(hours.planned, hours.measured),
        "", "",
    )  # fmt: skip
    columns = (*words("stage"), *numbers("wall time", "GPU hours planned", "GPU hours measured"), RATIO)
    columns += numbers("tokens per second", "MFU")
    lacking = any((of.hours_planned is None) != (of.hours is None) for of in stages)
    note = " Totals of hours are over the stages that have both." if lacking else ""
    return Table(columns, (*rows, total), "Time", _TIME + _HOURS + note, num_totals=1)


def _memory_table(stages: Sequence[StageCost]) -> Table | None:
    if not stages:
        return None
    pairs = [(of.name, of.memory_planned or 0.0, of.memory or 0.0) for of in stages]
    most = ("most", max(planned for _, planned, _ in pairs), max(measured for _, _, measured in pairs))
    rows = tuple(
        (name, significant(planned / 1e9), significant(measured / 1e9), _ratio(planned, measured))
        for name, planned, measured in (*pairs, *([most] if len(pairs) > 1 else []))
    )
    columns = (*words("stage"), *numbers("GB planned", "GB measured"), RATIO)
    return Table(columns, rows, "Memory", _MEMORY, num_totals=int(len(pairs) > 1))


def _ratio(planned: float | None, measured: float | None) -> str:
    return decimals(Total(planned, measured).ratio, 2)


def _divided(number: float | None, size: float) -> str:
    return ABSENT if number is None else significant(number / size)


def _rate(of: StageCost) -> str:
    return ABSENT if of.rate is None else compact(of.rate)

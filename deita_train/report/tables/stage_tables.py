"""The report's tables as plain data: columns and rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, Failure, RunSummary
from deita_train.report.tables.formats import ABSENT, compact, count, decimals, duration, share, significant


@dataclass(frozen=True)
class Column:
    """A column's heading, a short note below it, and how its values are set.

    Numbers are aligned right; ``style`` is ``number``, ``code`` (ids and digests), ``prose`` or empty.
    """

    title: str
    style: str = "number"
    note: str = ""

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.style == "number"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row. The ``num_references`` leading rows are there to compare with."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    num_references: int = 0


def training_table(summary: RunSummary, groups: Sequence[Group]) -> Table | None:
    """One row per trained model, or per group where each trained its own: its size, what it saw, and its losses."""
    rows, seen = [], set()
    for label in summary.stage_labels():
        for group in groups:
            items = group.artefacts(label)
            ids = frozenset(item.id for item in items)
            if items and ids not in seen and "history" in items[0].metrics:
                seen.add(ids)
                shared = all(found in ids for found in _ids(summary, label))
                rows.append((label if shared else f"{label}, {group.label}", *_training_values(items)))
    titles = ("runs", "parameters", "rows", "tokens", "with loss", "steps", "first loss", "last loss")
    columns = (Column("model", ""), *(Column(title) for title in titles))
    return Table(columns, tuple(rows)) if rows else None


def scorer_table(summary: RunSummary) -> Table | None:
    """One row per dimension of the recipe as written: how well its scorer does, and what it made of the pool."""
    stages = summary.base_cell.stages
    names = [
        name for name in ("complexity", "quality") if f"score.{name}" in stages or f"train_scorer.{name}" in stages
    ]
    rows = tuple(
        (name, *_heldout_values(stages.get(f"train_scorer.{name}")), *_score_values(stages.get(f"score.{name}")))
        for name in names
    )
    columns = (
        Column("scorer", ""),
        Column("held-out rows"),
        Column("rank correlation", note="higher is better"),
        Column("mean absolute error", note="lower is better"),
        Column("turns scored"),
        Column("without a score"),
        Column("shortened"),
        Column("mean score"),
        Column("mass on digits", note="higher is better"),
    )
    return Table(columns, rows) if rows else None


def calibration_table(summary: RunSummary) -> Table | None:
    """One row per scorer that was measured on held-out rows: how far its scores are from the labels, and where."""
    found = [(name, summary.base_cell.stages.get(f"train_scorer.{name}")) for name in ("complexity", "quality")]
    measured = [(name, item.metric("heldout")) for name, item in found if item is not None]
    rows = tuple((name, *_calibration_values(heldout)) for name, heldout in measured if heldout is not None)
    columns = (
        Column("scorer", ""),
        Column("bias", note="best is 0"),
        Column("slope", note="best is 1"),
        Column("intercept", note="best is 0"),
        *(Column(f"label {label}") for label in range(1, 7)),
    )
    return Table(columns, rows) if rows else None


def rejection_table(summary: RunSummary) -> Table | None:
    """Examples of rows that a kept row was too near to."""
    if summary.trace is None or not summary.trace.rejections:
        return None
    columns = (
        Column("rejected row", "code"),
        Column("kept row too near", "code"),
        Column("similarity"),
        Column("how the kept row begins", "prose"),
    )
    rejections = summary.trace.rejections
    rows = tuple((item.id, item.blocked_by, f"{item.similarity:.3f}", item.kept_opening) for item in rejections)
    return Table(columns, rows)


def drop_table(sources: Sequence[tuple[str, Artefact]]) -> Table | None:
    """Rows that reading lost, by reason, of one named source or of several; None where none was lost."""
    lost = [
        (name, reason, count(number), share(number / item.metric("rows_in")))
        for name, item in sources
        for reason, number in item.metric("drops").items()
        if number
    ]
    if not lost:
        return None
    columns = (Column("data", ""), Column("reason", ""), Column("rows"), Column("share of rows read"))
    first = 0 if len(sources) > 1 else 1
    return Table(columns[first:], tuple(row[first:] for row in lost))


def failure_table(summary: RunSummary) -> Table | None:
    """One row per artefact that could not be made: the cells that lack it, why, and what to do."""
    if not summary.failures:
        return None
    rows = tuple(
        (_cells_text(summary, item.artefact), item.label, item.message, _advice(item)) for item in summary.failures
    )
    columns = (Column("cells", ""), Column("failed at", ""), Column("why", "prose"), Column("what to do", "prose"))
    return Table(columns, rows)


def provenance_table(summary: RunSummary) -> tuple[Table, list[tuple[str, str]]]:
    """Every artefact of the run, and the sets of library versions that the last column refers to by letter."""
    letters: dict[str, str] = {}
    rows = []
    for label, item in summary.artefacts().values():
        manifest = item.manifest
        versions = " · ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
        letter = letters.setdefault(versions, chr(ord("A") + len(letters)))
        wall, digest = duration(manifest["wall_seconds"]), manifest["content_digest"][:12]
        rows.append((label, item.id, digest, wall, manifest["device"], count(manifest["world_size"]), letter))
    columns = (
        Column("stage", ""),
        Column("artefact", "code"),
        Column("digest", "code"),
        Column("wall time"),
        Column("device", ""),
        Column("world size"),
        Column("versions", ""),
    )
    return Table(columns, tuple(rows)), [(letter, versions) for versions, letter in letters.items()]


def _cells_text(summary: RunSummary, artefact: str) -> str:
    """The labels of the cells that were to have an artefact, or how many they are where all cells are."""
    labels = [cell.label for cell in summary.cells if artefact in cell.planned.values()]
    return f"all {len(labels)}" if len(labels) == len(summary.cells) > 1 else "; ".join(labels)


def _advice(failure: Failure) -> str:
    if failure.user_error:
        return "Mend what the message names and give the same command again; what is made is not made twice."
    return f"Read the logs in {failure.logs} and give the same command again; what is made is not made twice."


def _ids(summary: RunSummary, label: str) -> set[str]:
    return {cell.stages[label].id for cell in summary.cells if label in cell.stages}


def _training_values(items: Sequence[Artefact]) -> tuple[str, ...]:
    """Means over the runs of a group."""

    def mean(name: str) -> float:
        return sum(item.metric(name) for item in items) / len(items)

    histories = [[entry["loss"] for entry in item.metric("history")] for item in items]
    ends = [[history[place] for history in histories if history] for place in (0, -1)]
    return (
        count(len(items)),
        _parameters(items[0]),
        count(mean("train_rows")),
        *(compact(mean(name)) for name in ("train_tokens", "loss_tokens")),
        count(mean("steps")),
        *(significant(sum(losses) / len(losses)) if losses else ABSENT for losses in ends),
    )


def _parameters(item: Artefact) -> str:
    """How many parameters were trained; beside an adapter also those of its base, which were not."""
    trained, frozen = compact(item.metric("parameters")), item.metrics.get("frozen_parameters")
    return trained if frozen is None else f"{trained} + {compact(frozen)} frozen"


def _heldout_values(item: Artefact | None) -> tuple[str, ...]:
    heldout = item.metric("heldout") if item is not None else None
    if heldout is None:
        return (ABSENT,) * 3
    error = significant(heldout["mean_absolute_error"])
    return (count(heldout["rows"]), f"{heldout['rank_correlation']:.3f}".replace("-", "\N{MINUS SIGN}"), error)


def _calibration_values(heldout: Mapping[str, Any]) -> tuple[str, ...]:
    means = {
        entry["label"]: f"{decimals(entry['mean_score'], 2)} ({count(entry['rows'])})" for entry in heldout["by_label"]
    }
    line = (heldout["bias"], heldout["calibration_slope"], heldout["calibration_intercept"])
    return (*(decimals(value, 2) for value in line), *(means.get(label, ABSENT) for label in range(1, 7)))


def _score_values(item: Artefact | None) -> tuple[str, ...]:
    if item is None:
        return (ABSENT,) * 5
    without = sum(item.metric("nulls").values())
    means = (significant(item.metric("mean")), share(item.metric("digit_mass_mean")))
    return (count(item.metric("scored")), count(without), count(item.metric("shortened")), *means)

"""Tables of what stages recorded: trainings, rejected and dropped rows, failures, provenance."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.number_text import ABSENT, compact, count, duration, share, significant
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, Failure, RunSummary
from deita_train.table import CODE, PROSE, Column, Table, numbers, words

_TRAINING = (
    "Each value is the mean over a row's runs. First and last loss are single logged points, not averages over steps: "
    "read the trend in the curves."
)
_STRATA = (
    "The quota is the stratum's share of the budget. What a stratum could not fill was divided among the others by "
    "their shares, so these may keep more than their quota."
)
_STRATA_OF_TOKENS = " Quotas are in tokens, and each stratum ends at the first row that would exceed what it got."
_PROVENANCE = "The digest is the beginning of the manifest's content digest: equal digests mean equal content."


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
    has_dpo = any(group.artefacts("dpo") for group in groups)
    note = f"{_TRAINING} The rows of DPO are pairs." if has_dpo else _TRAINING
    return Table((*words("model"), *numbers(*titles)), tuple(rows), note=note) if rows else None


def strata_table(select: Artefact) -> Table | None:
    """The rows, the quota and the kept rows of each stratum; None for a selection without strata."""
    strata = select.metrics.get("strata")
    if strata is None:
        return None
    in_tokens = any("tokens" in of for of in strata.values())
    given, tokens = ("tokens", ["tokens"]) if in_tokens else ("selected", [])
    named = ("rows", "quota", "selected", *tokens)
    rows = tuple(
        (name, *(count(of[column]) for column in named), count(max(of["quota"] - of[given], 0)))
        for name, of in strata.items()
    )
    columns = (*words("stratum"), *numbers("rows", "quota", "kept", *tokens, "short of the quota"))
    return Table(columns, rows, note=_STRATA + (_STRATA_OF_TOKENS if in_tokens else ""))


def drop_table(sources: Sequence[tuple[str, Artefact]], note: str) -> Table | None:
    """Rows that were dropped when they were read, by reason, from one named source or several; None without any."""
    lost = [
        (name, reason, count(number), share(number / item.metric("rows_in")))
        for name, item in sources
        for reason, number in item.metric("drops").items()
        if number
    ]
    if not lost:
        return None
    columns = (*words("data", "reason"), *numbers("rows", "share of rows read"))
    first = 0 if len(sources) > 1 else 1
    return Table(columns[first:], tuple(row[first:] for row in lost), note=note)


def failure_table(summary: RunSummary) -> Table | None:
    """One row per artefact that failed: the cells that lack it, why, and what to do."""
    if not summary.failures:
        return None
    rows = tuple(
        (_cells_text(summary, item.artefact), item.label, item.message, _advice(item)) for item in summary.failures
    )
    columns = (*words("cells", "failed at"), Column("why", PROSE), Column("what to do", PROSE))
    return Table(columns, rows, note="One row for each stage that failed; the stages that read it were not run.")


def provenance_table(summary: RunSummary) -> tuple[Table, list[tuple[str, str]]]:
    """Every artefact of the run, and the library versions behind each letter of its last column."""
    letters: dict[str, str] = {}
    rows = []
    for label, item in summary.artefacts().values():
        manifest = item.manifest
        versions = " · ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
        letter = letters.setdefault(versions, chr(ord("A") + len(letters)))
        wall, digest = duration(manifest["wall_seconds"]), manifest["content_digest"][:12]
        rows.append((label, item.id, digest, wall, manifest["device"], count(manifest["world_size"]), letter))
    columns = (
        *words("stage"),
        Column("artefact", CODE),
        Column("digest", CODE),
        *numbers("wall time"),
        *words("device"),
        *numbers("world size"),
        *words("versions"),
    )
    return Table(columns, tuple(rows), note=_PROVENANCE), [(letter, versions) for versions, letter in letters.items()]


def _cells_text(summary: RunSummary, artefact: str) -> str:
    """The labels of the cells that need an artefact; just their number where all cells do."""
    labels = [cell.label for cell in summary.cells if artefact in cell.planned.values()]
    return f"all {len(labels)}" if len(labels) == len(summary.cells) > 1 else "; ".join(labels)


def _advice(failure: Failure) -> str:
    first = "Fix what the message names" if failure.user_error else f"Read the logs in {failure.logs}"
    return f"{first}, then run the same command again; finished stages are not repeated."


def _ids(summary: RunSummary, label: str) -> set[str]:
    return {cell.stages[label].id for cell in summary.cells if label in cell.stages}


def _training_values(items: Sequence[Artefact]) -> tuple[str, ...]:
    """The cells of a group's row: means over its runs."""

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
    """How many parameters were trained, and, with an adapter, how many of its base were frozen."""
    trained, frozen = compact(item.metric("parameters")), item.metrics.get("frozen_parameters")
    return trained if frozen is None else f"{trained} + {compact(frozen)} frozen"

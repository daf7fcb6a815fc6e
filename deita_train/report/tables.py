"""The report's tables as plain data: columns and rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.report.formats import ABSENT, compact, count, duration, estimated, estimated_count, share, significant
from deita_train.report.groups import Estimate, Group, Reading, groups_of, heldout_loss, heldout_loss_before
from deita_train.report.summary import Artefact, RunSummary

LOSS = "held-out loss"
EVOL_SCORE = "mean evol score"
_SCORER_COLUMNS = ("scorer", "held-out rows", "rank correlation", "mean absolute error", "mass on digits")

# What a column's direction means is known only for the columns of the built-in pool; others are shown without one.
DIRECTIONS = {"near_duplicate": "lower is better", "true_quality": "higher is better"}
DIRECTIONS["win_probability"] = "higher is better"


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
    """Rows of text; the first column names the row. the ``num_references`` leading rows are there to compare with."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    num_references: int = 0


@dataclass(frozen=True)
class Measure:
    """A quantity of the result table: where it is read, and its value for the pool or the model before SFT."""

    title: str
    stage: str
    read: Reading
    reference: Reading | None = None
    direction: str = ""
    is_share: bool = False
    is_count: bool = False

    def text(self, value: Estimate | None) -> str:
        """``value`` as the table shows it."""
        return estimated_count(value) if self.is_count else estimated(value, self.is_share)


@dataclass(frozen=True)
class ResultTable:
    """A table as plain text, for a command line that imports nothing heavy: its first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def result_measures(summary: RunSummary, groups: Sequence[Group]) -> list[Measure]:
    """The quantities that at least one group has, those of the selection before those of the trained model."""
    shares = summary.trace.boolean_columns if summary.trace else frozenset()
    names = dict.fromkeys(name for group in groups for item in group.artefacts("select") for name in _columns(item))
    ordered = sorted(names, key=lambda name: name != "near_duplicate")
    measures = [
        Measure("rows kept", "select", lambda item: item.metric("rows_out"), _rows_in, is_count=True),
        *(_column_measure(name, name in shares or name == "near_duplicate") for name in ordered),
        Measure("planted duplicates rejected", "select", _caught_share, None, "higher is better", is_share=True),
        Measure(EVOL_SCORE, "select", _score_mean("selected"), _score_mean("pool")),
        Measure(LOSS, "evaluate", heldout_loss, heldout_loss_before, "lower is better"),
    ]
    return [item for item in measures if any(group.values(item.stage, item.read) for group in groups)]


def group_table(summary: RunSummary, groups: Sequence[Group]) -> Table | None:
    """One row per group, below the pool and the model before SFT as references; None without any result."""
    measures = result_measures(summary, groups)
    if not measures:
        return None
    columns = [Column(item.title, note=item.direction) for item in measures]
    references = [
        _reference_row(name, stage, measures, groups)
        for name, stage in (("whole pool", "select"), ("before SFT", "evaluate"))
        if any(item.stage == stage and _reference(item, groups) for item in measures)
    ]
    rows = [
        (group.label, count(len(group.cells)), *(item.text(group.estimate(item.stage, item.read)) for item in measures))
        for group in groups
    ]
    return Table((Column("group", ""), Column("seeds"), *columns), (*references, *rows), len(references))


def result_tables(summary: RunSummary) -> list[ResultTable]:
    """What the command line prints after a run: one column per group, and how well the scorers rank."""
    groups = groups_of(summary)
    measures = result_measures(summary, groups)
    tables = []
    if measures:
        head = ("", *(group.label for group in groups), "for comparison")
        rows = [(item.title, *_group_texts(item, groups), _named_reference(item, groups)) for item in measures]
        seeds = ("seeds", *(count(len(group.cells)) for group in groups), "")
        tables.append(ResultTable("result", head, (*rows, seeds)))
    scorers = scorer_table(summary)
    if scorers is not None:
        wanted = [place for place, column in enumerate(scorers.columns) if column.title in _SCORER_COLUMNS]
        head = tuple(scorers.columns[place].title for place in wanted)
        tables.append(ResultTable("scorers", head, tuple(tuple(row[p] for p in wanted) for row in scorers.rows)))
    return tables


def _group_texts(item: Measure, groups: Sequence[Group]) -> list[str]:
    return [item.text(group.estimate(item.stage, item.read)) for group in groups]


def _named_reference(item: Measure, groups: Sequence[Group]) -> str:
    reference = _reference(item, groups)
    return f"{reference} ({'pool' if item.stage == 'select' else 'before SFT'})" if reference else ""


def training_table(summary: RunSummary) -> Table | None:
    """One row per trained model: its size, what it saw, and its first and last loss."""
    rows = []
    for label, item in summary.artefacts().values():
        if item.manifest["kind"] in ("base", "train_scorer", "sft"):
            rows.append((_model_name(summary, label, item), *_training_values(item)))
    titles = ("parameters", "rows", "tokens", "with loss", "steps", "first loss", "last loss")
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


def drop_table(pool: Artefact) -> Table | None:
    """Rows that the pool lost, by reason; None where it lost none."""
    drops = {reason: number for reason, number in pool.metric("drops").items() if number}
    if not drops:
        return None
    rows_in = pool.metric("rows_in")
    rows = tuple((reason, count(number), share(number / rows_in)) for reason, number in drops.items())
    return Table((Column("reason", ""), Column("rows"), Column("share of rows read")), rows)


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


def _columns(item: Artefact) -> dict[str, dict[str, float]]:
    return dict(item.metric("columns"))


def _rows_in(item: Artefact) -> float:
    return float(item.metric("rows_in"))


def _column_measure(name: str, is_share: bool) -> Measure:
    title = f"{name.replace('_', ' ')} share" if is_share else f"mean {name.replace('_', ' ')}"

    def reading(side: str) -> Reading:
        return lambda item: _columns(item).get(name, {}).get(side)

    return Measure(title, "select", reading("selected"), reading("pool"), DIRECTIONS.get(name, ""), is_share)


def _score_mean(side: str) -> Reading:
    """A method that does not score, such as random, may have no mean."""
    return lambda item: (item.metrics.get("score_mean") or {}).get(side)


def _caught_share(item: Artefact) -> float | None:
    duplicates = item.metrics.get("duplicates")
    return duplicates["rejected"] / duplicates["met"] if duplicates and duplicates["met"] else None


def _reference(measure: Measure, groups: Sequence[Group]) -> str:
    """The pool's value, or that before SFT; ``varies`` where the groups have different pools or models."""
    if measure.reference is None:
        return ""
    estimates = (group.estimate(measure.stage, measure.reference) for group in groups)
    texts = {measure.text(value) for value in estimates if value is not None}
    return "varies" if len(texts) > 1 else "".join(texts)


def _reference_row(name: str, stage: str, measures: Sequence[Measure], groups: Sequence[Group]) -> tuple[str, ...]:
    texts = (_reference(item, groups) if item.stage == stage else "" for item in measures)
    return (name, "", *texts)


def _model_name(summary: RunSummary, label: str, item: Artefact) -> str:
    """The stage's label; with the first cell that uses the artefact where the run has several of the stage."""
    users = [cell for cell in summary.cells if label in cell.stages]
    if len({cell.stages[label].id for cell in users}) == 1:
        return label
    return f"{label}, {next(cell.label for cell in users if cell.stages[label].id == item.id)}"


def _training_values(item: Artefact) -> tuple[str, ...]:
    history = [entry["loss"] for entry in item.metric("history")]
    ends = (significant(history[0]), significant(history[-1])) if history else (ABSENT, ABSENT)
    tokens = (compact(item.metric("train_tokens")), compact(item.metric("loss_tokens")))
    return (
        compact(item.metric("parameters")),
        count(item.metric("train_rows")),
        *tokens,
        count(item.metric("steps")),
        *ends,
    )


def _heldout_values(item: Artefact | None) -> tuple[str, ...]:
    heldout = item.metric("heldout") if item is not None else None
    if heldout is None:
        return (ABSENT,) * 3
    error = significant(heldout["mean_absolute_error"])
    return (count(heldout["rows"]), f"{heldout['rank_correlation']:.3f}".replace("-", "\N{MINUS SIGN}"), error)


def _score_values(item: Artefact | None) -> tuple[str, ...]:
    if item is None:
        return (ABSENT,) * 5
    without = sum(item.metric("nulls").values())
    means = (significant(item.metric("mean")), share(item.metric("digit_mass_mean")))
    return (count(item.metric("scored")), count(without), count(item.metric("shortened")), *means)

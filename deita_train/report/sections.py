"""The report's sections: what each shows, in the order of reading, as data that both templates render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from deita_train.report import figures, tables
from deita_train.report.formats import compact, count, duration, plural, share
from deita_train.report.groups import Group, heldout_loss
from deita_train.report.summary import Artefact, RunSummary, SelectionTrace, shortened
from deita_train.report.tables import Table

EXAMPLES_PER_REASON = 2
EXAMPLE_CHARS = 200


@dataclass(frozen=True)
class Figure:
    """A drawn panel: its file's name, its title, and sentences that say what it shows."""

    name: str
    title: str
    text: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A section in its fixed order: introduction, tables with their explanation, figures, quoted texts, folded text."""

    title: str
    text: str
    tables: tuple[tuple[Table, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    quotes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    folded: str = field(default="")

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return self.title.lower().replace(" ", "-")


def sections_of(summary: RunSummary, groups: Sequence[Group]) -> list[Section]:
    """The sections for which the run has data."""
    builders: tuple[Callable[[RunSummary, Sequence[Group]], Section | None], ...] = (
        result_section,
        selection_section,
        scorer_section,
        training_section,
        pool_section,
        time_section,
        provenance_section,
        recipe_section,
    )
    built = (build(summary, groups) for build in builders)
    return [section for section in built if section is not None]


def result_section(summary: RunSummary, groups: Sequence[Group]) -> Section | None:
    """The groups side by side, and their held-out losses."""
    table = tables.group_table(summary, groups)
    if table is None:
        return None
    text = "What each group kept of the pool, and how the model trained on it does on conversations it never saw."
    if len(groups) > 1:
        text += " Cells of the sweep that differ only in seeds form one group; the recipe as written comes first."
    explanation = (
        "Each value is the mean over a group's seeds; ± is half of the 95% interval of that mean (Student's t). A "
        "value without ± is the same for every seed, or was measured once. Held-out loss is the mean negative log "
        "likelihood of the assistant's tokens, in nats."
    )
    if table.columns[-1].title != tables.LOSS:
        explanation = explanation.rsplit(" Held-out", 1)[0]
    return Section("Result", text, ((table, explanation),), tuple(_result_figures(groups)))


def selection_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What the recipe as written kept, against what it could have kept."""
    select, trace = summary.base_cell.stages.get("select"), summary.trace
    if select is None or trace is None:
        return None
    rejections = tables.rejection_table(summary)
    explanation = (
        "Examples spread evenly over the rejected rows, from the nearest pair to the closest call. Similarity is the "
        "cosine of the two embeddings."
    )
    return Section(
        "Selection",
        _selection_text(summary, select, trace),
        ((rejections, explanation),) if rejections else (),
        tuple(_selection_figures(select, trace)),
    )


def scorer_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How far the scores can be trusted, and how they are distributed."""
    table = tables.scorer_table(summary)
    if table is None:
        return None
    explanation = (
        "Rank correlation (Spearman's) and mean absolute error compare the scorer with its labels on rows kept out of "
        "its training; a dash means that nothing was kept out or that the scorer was not trained here. Mass on digits "
        "is the probability that the model gives to the six digits together: far below 100%, it is not answering the "
        "question."
    )
    text = (
        "Each turn of each conversation is scored from 1 to 6 in one forward pass: the expectation over the six digits."
    )
    found = ((name, summary.base_cell.stages.get(f"score.{name}")) for name in ("complexity", "quality"))
    panels = tuple(_score_figure(name, item) for name, item in found if item is not None)
    return Section("Scorers", text, ((table, explanation),), panels, notes=tuple(_null_notes(summary)))


def training_section(summary: RunSummary, groups: Sequence[Group]) -> Section | None:
    """Every trained model, and how its loss went."""
    table = tables.training_table(summary)
    if table is None:
        return None
    panels = [_sft_figure(groups)] if any(group.artefacts("sft") for group in groups) else []
    for label, item in summary.base_cell.stages.items():
        if item.manifest["kind"] in ("base", "train_scorer"):
            title = f"Training loss, {_model_title(label)}"
            name = label.replace(".", "-").replace("_", "-")
            svg = figures.training_curve(label, *_history(item))
            text = "Mean loss per token of the steps since the last point; falling is good."
            panels.append(Figure(f"loss-{name}", title, text, svg))
    text = "Loss is the cross-entropy in nats per token, over the tokens that carry loss: in SFT, the assistant's own."
    explanation = "First and last loss are single logged points, not averages: read the trend in the curves."
    return Section("Training", text, ((table, explanation),), tuple(panels), notes=tuple(_sft_notes(summary)))


def pool_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What was read, what was dropped and why."""
    pool = summary.base_cell.stages.get("pool")
    if pool is None:
        return None
    rows_in, rows_out = pool.metric("rows_in"), pool.metric("rows_out")
    text = (
        f"{plural(rows_in, 'row')} read, {count(rows_out)} usable; a conversation has {pool.metric('mean_turns'):.1f} "
        f"turns on average."
    )
    drops = tables.drop_table(pool)
    text += "" if drops else " No row was dropped."
    quotes = tuple(
        (reason, tuple(shortened(example, EXAMPLE_CHARS) for example in examples[:EXAMPLES_PER_REASON]))
        for reason, examples in pool.metric("examples").items()
        if examples
    )
    left_out = pool.metric("columns_left_out")
    notes = (f"Columns of the source that were not carried along: {', '.join(left_out)}.",) if left_out else ()
    explanation = "Rows that cannot be trained on are dropped before anything is scored."
    return Section("Pool", text, ((drops, explanation),) if drops else (), quotes=quotes, notes=notes)


def time_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Wall time by stage."""
    if not summary.artefacts():
        return None
    seconds: dict[str, float] = {}
    number: dict[str, int] = {}
    for label, item in summary.artefacts().values():
        seconds[label] = seconds.get(label, 0.0) + item.manifest["wall_seconds"]
        number[label] = number.get(label, 0) + 1
    named = {f"{label} ({number[label]} runs)" if number[label] > 1 else label: wall for label, wall in seconds.items()}
    text = (
        "Wall time from the start of a stage to its published artefact, summed over the stage's runs. An artefact that "
        "several cells share, or that an earlier run left, is counted once, with the time that it took then."
    )
    svg = figures.wall_time_by_stage(named)
    total = f"Where {duration(sum(seconds.values()))} of wall time went."
    return Section("Time", total, figures=(Figure("wall-time", "Wall time by stage", text, svg),))


def provenance_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Where every number comes from."""
    if not summary.artefacts():
        return None
    table, versions = tables.provenance_table(summary)
    text = (
        "Each artefact is a folder of the store with a manifest that holds its configuration, its parents and the "
        "command that made it."
    )
    explanation = "The digest is the beginning of the manifest's content digest: equal digests mean equal content."
    notes = tuple(f"Versions {letter}: {text}" for letter, text in versions)
    return Section("Provenance", text, ((table, explanation),), notes=notes)


def recipe_section(summary: RunSummary, _: Sequence[Group]) -> Section:
    """The recipe with every default filled in."""
    return Section("Recipe", "The resolved recipe: every default is written out.", folded=summary.recipe_text)


def _result_figures(groups: Sequence[Group]) -> list[Figure]:
    """The held-out loss and, where copies were planted in the pool, the share of them among the kept rows."""
    panels = []
    losses = {group.label: group.values("evaluate", heldout_loss) for group in groups}
    if any(losses.values()):
        svg = figures.estimates_by_group("heldout-loss", "held-out loss, nats per token", losses)
        text = (
            "Each dot is one seed, the diamond their mean and the bar its 95% interval. Further left is better; the "
            "axis does not start at zero."
        )
        panels.append(Figure("heldout-loss", "Held-out loss", text, svg))
    shares, pool = _near_duplicate_percentages(groups)
    if any(shares.values()):
        svg = figures.estimates_by_group("near-duplicates", "near-duplicates among the kept rows", shares, pool, "%")
        line = "" if pool is None else " The dashed line is the pool."
        text = f"The share of near-copies of other rows in what each group kept. Further left is better.{line}"
        panels.append(Figure("near-duplicates", "Near-duplicates", text, svg))
    return panels


def _near_duplicate_percentages(groups: Sequence[Group]) -> tuple[dict[str, list[float]], float | None]:
    """By group, the percentage of near-duplicates among the kept rows; and the pool's, where all have one pool."""
    kept, pools = {}, set()
    for group in groups:
        columns = [item.metric("columns").get("near_duplicate") for item in group.artefacts("select")]
        kept[group.label] = [100 * means["selected"] for means in columns if means]
        pools |= {100 * means["pool"] for means in columns if means}
    return kept, pools.pop() if len(pools) == 1 else None


def _model_title(label: str) -> str:
    """``base model``, ``complexity scorer``."""
    return f"{label.removeprefix('train_scorer.')} {'scorer' if label.startswith('train_scorer.') else 'model'}"


def _selection_text(summary: RunSummary, select: Artefact, trace: SelectionTrace) -> str:
    number = f"{count(trace.kept.sum())} of {plural(len(trace.kept), 'row')}"
    text = f"The recipe as written kept {number} with the method {select.metric('method')}."
    threshold, rejected = select.metric("threshold"), select.metric("rejected")
    if threshold is not None and rejected is not None:
        text += (
            f" Rows are taken in the method's order; a row whose similarity to a row already kept is above "
            f"{threshold:g} is passed over. The walk saw {plural(select.metric('seen'), 'row')} and passed over "
            f"{count(rejected)}."
        )
    embed = summary.base_cell.stages.get("embed")
    if embed is not None:
        rows, dimensions = embed.metric("rows"), embed.metric("dimensions")
        text += (
            f" Embeddings have {count(dimensions)} dimensions; {count(embed.metric('truncated'))} of {count(rows)} "
            f"conversations were longer than the encoder reads."
        )
    return text


def _selection_figures(select: Artefact, trace: SelectionTrace) -> list[Figure]:
    panels = []
    if trace.evol_score is not None and np.isfinite(trace.evol_score).any():
        svg = figures.evol_score_distribution(trace.evol_score, trace.evol_score[trace.kept])
        text = "Complexity times quality, summed over the turns. Bars are shares of the pool and of the kept rows."
        panels.append(Figure("evol-score", "Evol score", text, svg))
    if trace.nearest_similarity is not None and np.isfinite(trace.nearest_similarity).any():
        panels.append(_similarity_figure(select, trace))
    if trace.num_chars is not None:
        svg = figures.length_distribution(trace.num_chars, trace.num_chars[trace.kept])
        text = f"Median number of characters: {_medians(trace.num_chars, trace.kept)}. The axis is logarithmic."
        panels.append(Figure("length", "Length", text, svg))
    if trace.num_turns is not None:
        svg = figures.turns_distribution(trace.num_turns, trace.num_turns[trace.kept])
        means = (
            f"{trace.num_turns[trace.kept].mean():.1f} among the kept rows, {trace.num_turns.mean():.1f} in the pool"
        )
        text = f"Mean number of turns: {means}. A sum over turns favours long conversations; this shows by how much."
        panels.append(Figure("turns", "Turns", text, svg))
    return panels


def _similarity_figure(select: Artefact, trace: SelectionTrace) -> Figure:
    assert trace.nearest_similarity is not None, "asked for only where the method wrote similarities"
    reached = np.isfinite(trace.nearest_similarity)
    kept, rejected = (trace.nearest_similarity[reached & side] for side in (trace.kept, ~trace.kept))
    svg = figures.nearest_similarity_histogram(kept, rejected, select.metric("threshold"))
    text = (
        "For each row that the walk reached, its highest cosine similarity to the rows kept before it. Mass close to "
        "the threshold means that the result depends on its exact value."
    )
    return Figure("nearest-similarity", "Nearest kept row", text, svg)


def _medians(values: np.ndarray, kept: np.ndarray) -> str:
    return f"{count(float(np.median(values[kept])))} among the kept rows, {count(float(np.median(values)))} in the pool"


def _score_figure(dimension: str, item: Artefact) -> Figure:
    histogram = item.metric("histogram")
    svg = figures.score_histogram(dimension, histogram["edges"], histogram["counts"], item.metric("mean"))
    text = (
        f"Scores of {plural(item.metric('scored'), 'turn')} of the pool. A narrow peak means that the scorer hardly "
        f"tells the turns apart."
    )
    return Figure(f"score-{dimension}", f"{dimension.capitalize()} scores", text, svg)


def _null_notes(summary: RunSummary) -> list[str]:
    """Why turns have no score, dimension by dimension."""
    notes = []
    for name in ("complexity", "quality"):
        item = summary.base_cell.stages.get(f"score.{name}")
        nulls = {} if item is None else {reason: number for reason, number in item.metric("nulls").items() if number}
        if nulls:
            reasons = ", ".join(f"{reason} ({count(number)})" for reason, number in nulls.items())
            notes.append(f"Turns without a {name} score: {reasons}.")
    return notes


def _sft_figure(groups: Sequence[Group]) -> Figure:
    curves = [(group.label, *_history(item)) for group in groups for item in group.artefacts("sft")]
    text = f"One line for each of {plural(len(curves), 'run')}, as logged; a group has one colour. "
    text += "Training loss is not comparable between groups, which train on different rows: use the held-out loss."
    return Figure(
        "sft-loss", "Training loss, SFT", text, figures.loss_curves([group.label for group in groups], curves)
    )


def _history(item: Artefact) -> tuple[list[float], list[float]]:
    history = item.metric("history")
    return [entry["step"] for entry in history], [entry["loss"] for entry in history]


def _sft_notes(summary: RunSummary) -> list[str]:
    sft = summary.base_cell.stages.get("sft")
    if sft is None:
        return []
    rows, truncated, without = (sft.metric(name) for name in ("train_rows", "rows_truncated", "rows_without_loss"))
    # Null when a run was resumed after its last step and trained nothing itself.
    speed = sft.metric("tokens_per_second")
    return [
        f"SFT of the recipe as written: {count(truncated)} of {plural(rows, 'row')} ({share(truncated / rows)}) were "
        f"longer than the maximal length and cut; {count(without)} had no token with loss left."
        + (f" {compact(speed)} tokens per second." if speed is not None else "")
    ]

"""The sections on what the models do: the result, by group or over a swept setting, and how they were trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from deita_train.number_text import compact, count, decimals, plural, share
from deita_train.report.figures.curves import Curve, training_curves
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.result_figures import result_figures
from deita_train.report.results.groups import BASE_RUN, Group
from deita_train.report.results.rendered import refused, template_words
from deita_train.report.results.result_measures import TUNED, model_measures
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.results.sweep_axis import sweep_of
from deita_train.report.sections.section import Section
from deita_train.report.tables.page_results import page_kept_tables, page_model_tables
from deita_train.report.tables.stage_tables import training_table
from deita_train.table import Table

# DPO's loss is minus the log of a logistic function at the reward margin, which is zero before the first step.
LOSS_AT_START = math.log(2)


def result_section(summary: RunSummary, groups: Sequence[Group]) -> Section | None:
    """The groups side by side or over the swept setting: how their models do, and what they kept."""
    models, kept = page_model_tables(groups), page_kept_tables(summary, groups)
    if not models and not kept:
        return None
    text = "Means over the rows that were kept, and over the whole pool."
    tables = (
        *_noted(models, f"{_means_text(groups)} {_model_words(groups)}"),
        *_noted(kept, text if models else f"{_means_text(groups)} {text}"),
    )
    return Section("Result", _result_text(groups, bool(kept)), tables, tuple(result_figures(summary, groups)))


def _noted(tables: Sequence[Table], note: str) -> list[Table]:
    """Tables with a note below the last of them."""
    return [*tables[:-1], *(replace(table, note=note) for table in tables[-1:])]


def training_section(summary: RunSummary, groups: Sequence[Group]) -> Section | None:
    """Every trained model, and how its loss went."""
    table = training_table(summary, groups)
    if table is None:
        return None
    text = "Loss is the cross-entropy in nats per token, over the tokens that carry loss: in SFT, the assistant's own."
    if any(group.artefacts("dpo") for group in groups):
        text += " The loss of DPO is a different one: minus the log of the probability that the chosen answer wins."
    figures = (*_tuning_figures(groups), *_other_figures(summary))
    return Section("Training", text, (table,), figures, notes=tuple(_tuning_notes(summary)))


def _result_text(groups: Sequence[Group], has_kept: bool) -> str:
    stages = {item.stage.split(".")[0] for item in model_measures(groups)}
    heldout = " on held-out rows" if stages & {"evaluate", "evaluate_pairs"} else ""
    parts = [f"how the tuned models do{heldout}"] if stages else []
    parts += ["what each group kept of the pool"] if has_kept else []
    text = f"{', and '.join(parts).capitalize()}."
    if len(groups) == 1:
        return text
    text += " Cells of the sweep that differ only in seeds form one group."
    if sweep_of(groups) is None:
        return f"{text} The base run comes first."
    if groups[0].label == BASE_RUN:
        return f"{text} The base run has a row of its own, because no cell of the sweep repeats it."
    return f"{text} The base run is: {groups[0].label}."


def _means_text(groups: Sequence[Group]) -> str:
    text = (
        "Each value is the mean over a group's seeds; ± is half the 95% interval of that mean (Student's t). A value "
        "without ± is the same for every seed, or was measured once."
    )
    if any(cell.failed for group in groups for cell in group.cells):
        text += " (2 of 3) marks a mean over two of three seeds, as one failed; a cell reads failed where all did."
    return text


def _model_words(groups: Sequence[Group]) -> str:
    """What the columns of the model table mean."""
    measures = model_measures(groups)
    stages = {item.stage.split(".")[0] for item in measures}
    words = []
    if "evaluate" in stages:
        words.append("Held-out loss is the mean negative log likelihood of the assistant's tokens, in nats.")
    if "evaluate_pairs" in stages:
        words.append(
            "Preference accuracy is the share of held-out pairs whose chosen answer has the higher log-probability, "
            "summed over its tokens, and the margin the mean difference in nats. Both favour short answers, because "
            "every token makes an answer less likely."
        )
    if any(item.title.startswith("reward") for item in measures):
        words.append(
            "The reward is DPO's own, beta times the gain in log-probability over the model before it, on the same "
            "pairs; an accuracy of 50% is chance."
        )
    return " ".join(words)


def _tuning_figures(groups: Sequence[Group]) -> list[Figure]:
    """Loss of SFT; loss and reward margin of DPO."""
    panels = []
    if any(group.artefacts("sft") for group in groups):
        text = (
            f"{_lines_text('sft', groups)} Training loss is not comparable between groups, which train on different "
            "rows: use the held-out loss."
        )
        panels.append(_tuning_figure("sft-loss", "Training loss, SFT", text, "sft", "loss", groups))
    trained = [item for group in groups for item in group.artefacts("dpo")]
    if trained:
        start = (LOSS_AT_START, f"ln 2 = {decimals(LOSS_AT_START, 3)}") if all(map(_is_sigmoid, trained)) else None
        text = _lines_text("dpo", groups)
        if start is not None:
            text += " The dotted line is ln 2, the loss of the model before DPO."
        panels.append(_tuning_figure("dpo-loss", "Training loss, DPO", text, "dpo", "loss", groups, start))
        text = (
            "How much more reward the chosen answer gets than the rejected one, on the training pairs: what DPO raises."
            " The dotted line is zero, where it starts."
        )
        title, at_start = "Reward margin, DPO", (0.0, "")
        panels.append(_tuning_figure("dpo-margin", title, text, "dpo", "reward_margin", groups, at_start))
    return panels


def _tuning_figure(
    name: str,
    title: str,
    text: str,
    stage: str,
    quantity: str,
    groups: Sequence[Group],
    level: tuple[float, str] | None = None,
) -> Figure:
    sweep = sweep_of(groups)
    found: dict[str, Curve] = {}
    for group in groups:
        label, depth = (group.label, 1.0) if sweep is None else (sweep.label_of(group), sweep.depth_of(group))
        for item in group.artefacts(stage):
            found.setdefault(item.id, _curve(item, quantity, label, depth))
    labels = [group.label for group in groups] if sweep is None else sweep.labels
    axis, curves = quantity.replace("_", " "), list(found.values())
    return Figure(name, title, text, partial(training_curves, name, axis, labels, curves, level))


def _other_figures(summary: RunSummary) -> list[Figure]:
    """Loss of the base model and of the scorers."""
    panels = []
    for label, item in summary.base_cell.stages.items():
        if "history" in item.metrics and label not in TUNED:
            name = f"loss-{label.replace('.', '-').replace('_', '-')}"
            draw = partial(training_curves, name, "loss", [label], [_curve(item, "loss", label)])
            text = "Mean loss per token of the steps since the last point; it should fall."
            panels.append(Figure(name, f"Training loss, {_model_title(label)}", text, draw))
    return panels


def _lines_text(stage: str, groups: Sequence[Group]) -> str:
    number = len({item.id for group in groups for item in group.artefacts(stage)})
    text = f"One line for each of {plural(number, 'run')}, as logged" if number > 1 else "As logged"
    sweep = sweep_of(groups)
    if sweep is None:
        return f"{text}; a group has one colour." if len(groups) > 1 else f"{text}."
    return f"{text}; the fuller a line's colour, the higher its {sweep.name}."


def _curve(item: Artefact, quantity: str, label: str, depth: float = 1.0) -> Curve:
    history = item.metric("history")
    return Curve(label, tuple(entry["step"] for entry in history), tuple(entry[quantity] for entry in history), depth)


def _is_sigmoid(item: Artefact) -> bool:
    """Whether DPO's loss is that of its paper, which starts at ln 2."""
    return item.manifest["config"].get("trainer", {}).get("loss_type", "sigmoid") in ("sigmoid", ["sigmoid"])


def _model_title(label: str) -> str:
    """`base model`, `complexity scorer`."""
    return f"{label.removeprefix('train_scorer.')} {'scorer' if label.startswith('train_scorer.') else 'model'}"


def _tuning_notes(summary: RunSummary) -> list[str]:
    """What the base run's trainings cut and left out."""
    notes = []
    for label, noun in (("sft", "row"), ("dpo", "pair")):
        item = summary.base_cell.stages.get(label)
        if item is not None:
            notes.append(_tuning_note(TUNED[label], noun, item))
    reference = summary.base_cell.stages.get("reference")
    if reference is not None:
        pairs = reference.metric("pairs")
        notes.append(
            f"Under the model before DPO the chosen answer is the likelier one in {share(pairs['accuracy'])} of "
            f"{plural(pairs['rows'], 'training pair')}."
        )
    return notes


def _tuning_note(name: str, noun: str, item: Artefact) -> str:
    rows, truncated, without = (item.metric(key) for key in ("train_rows", "rows_truncated", "rows_without_loss"))
    # None where a run was resumed after its last step and trained nothing itself; MFU is None on a CPU too. Artefacts
    # of earlier versions, whose keys are the same, lack both.
    speed, mfu = item.metrics.get("tokens_per_second_per_device"), item.metrics.get("mfu")
    beyond = item.metrics.get("rows_beyond_context", 0)
    left_out = "".join(f" {plural(number, noun)} left out: {reason}." for reason, number in refused(item).items())
    as_text = item.metrics.get("rows_as_text")
    written = f" {plural(as_text, noun)} with fields written as text." if as_text else ""
    more = f"; {count(without)} more {'was' if without == 1 else 'were'} left out, without a token with loss"
    return (
        f"Chat template of {name}: {template_words(item)}.{left_out}{written} "
        f"{name} of the base run: {count(truncated)} of {plural(rows, noun)} ({share(truncated / rows)}) were "
        f"longer than the maximal length and cut{more if without else ''}."
        + (f" {count(beyond)} were longer than the model's context, as max_length states." if beyond else "")
        + (f" {compact(speed)} tokens per second on each device." if speed is not None else "")
        + (f" MFU {share(mfu)}." if mfu is not None else "")
    )

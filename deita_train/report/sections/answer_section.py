"""The section with what the models of the base run answer to some held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.number_text import plural
from deita_train.report.results.groups import Group
from deita_train.report.results.result_measures import TUNED
from deita_train.report.results.summary import RunSummary, shortened
from deita_train.report.sections.section import Section
from deita_train.table import PROSE, Column, Table

TITLE = "Answers"
_PROMPT_CHARS = 400


def answer_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Prompts of the held-out rows, and each model's answer beside them."""
    answers = _by_model(summary)
    if not answers:
        return None
    first = next(iter(answers.values()))
    columns = (Column("prompt", PROSE), *(Column(name, PROSE) for name in answers))
    rows = tuple(
        (shortened(asked["prompt"], _PROMPT_CHARS), *_texts(answers, row_id)) for row_id, asked in first.items()
    )
    text = (
        f"What the models of the base run answer to {plural(len(first), 'held-out prompt')}, always with the likeliest "
        "token. A sample to read: the held-out loss is over all rows."
    )
    cut = any(not answer["is_ended"] for by_id in answers.values() for answer in by_id.values())
    note = "An answer that ends in an ellipsis was still going on when it was cut off." if cut else ""
    return Section(TITLE, text, (Table(columns, rows, note=note),))


def _by_model(summary: RunSummary) -> dict[str, Mapping[str, Any]]:
    """The answers by the model's name, the untuned one first; without models that have none."""
    stages = summary.base_cell.stages
    names = {"base": "base", **TUNED}
    found = {title: stages.get(f"evaluate.{name}") for name, title in names.items()}
    # Artefacts of earlier versions have no answers.
    answers = {title: item.metrics.get("answers") for title, item in found.items() if item is not None}
    return {title: by_id for title, by_id in answers.items() if by_id}


def _texts(answers: Mapping[str, Mapping[str, Any]], row_id: str) -> list[str]:
    found = (by_id.get(row_id) for by_id in answers.values())
    return ["" if answer is None else _text(answer) for answer in found]


def _text(answer: Mapping[str, Any]) -> str:
    line = " ".join(answer["answer"].split())
    return line if answer["is_ended"] else f"{line}\N{HORIZONTAL ELLIPSIS}"

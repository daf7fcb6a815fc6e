"""The section with what the models of the base run answer, side by side: to questions, and to held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from deita_train.number_text import ABSENT, count, decimals, plural, share
from deita_train.report.results.benchmarks import MODELS
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.table import LONG, Column, Table, numbers, words

TITLE = "Answers"
_QUESTIONS_SHOWN = 24
_CHARS_SHOWN = 6000
_CUT = "An answer that ends in an ellipsis was still going on when it was cut off."


@dataclass(frozen=True)
class _Said:
    """An answer as it is shown."""

    text: str
    is_cut: bool = False


def answer_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """The same prompts under each model, and the answers in numbers."""
    asked, sampled = _asked(summary), _sampled(summary)
    tables, texts = [], []
    if asked:
        shown = _side_by_side(asked, {name: _table_answers(item) for name, item in asked.items()})
        tables += [shown, _in_numbers(asked)]
        texts.append(f"What the models of the base run answer to the same questions{_how(asked)}.")
    if sampled:
        found = {name: _sample_answers(answers) for name, answers in sampled.items()}
        prompts = {key: answer["prompt"] for key, answer in next(iter(sampled.values())).items()}
        number = plural(len(prompts), "held-out prompt")
        tables.append(_table(prompts, found, f"{number}, likeliest tokens"))
        who = "And what they" if asked else "What the models of the base run"
        texts.append(
            f"{who} answer to {number}, always with the likeliest token. A sample to read: the held-out loss is over "
            "all rows."
        )
    return Section(TITLE, " ".join(texts), tuple(tables)) if tables else None


def _asked(summary: RunSummary) -> dict[str, Artefact]:
    """The answers of `evaluate.answers` by the model's name, the untuned one first."""
    stages = summary.base_cell.stages
    found = {model: stages[f"generate.{model}"] for model in MODELS if f"generate.{model}" in stages}
    return {_name(model, item): item for model, item in found.items()}


def _name(model: str, item: Artefact) -> str:
    """What a model is called; one behind an endpoint as its server calls it."""
    named = item.manifest["config"].get("model", {}).get("served")
    return str(named) if model == "served" and named else MODELS[model]


def _sampled(summary: RunSummary) -> dict[str, Mapping[str, Any]]:
    """The answers to held-out prompts by the model's name; without models that have none."""
    stages = summary.base_cell.stages
    found = {title: stages.get(f"evaluate.{model}") for model, title in MODELS.items()}
    # Artefacts of earlier versions have no answers.
    answers = {title: item.metrics.get("answers") for title, item in found.items() if item is not None}
    return {title: by_id for title, by_id in answers.items() if by_id}


def _how(asked: Mapping[str, Artefact]) -> str:
    """In words how answers were drawn."""
    configs = [item.manifest["config"] for item in asked.values()]
    temperature = configs[0].get("temperature")
    if isinstance(temperature, Mapping):
        return ", at the temperature of each question's category"
    return f", drawn at temperature {temperature:g}" if temperature else ", always with the likeliest token"


def _side_by_side(asked: Mapping[str, Artefact], answers: Mapping[str, Mapping[str, _Said]]) -> Table:
    prompts = _prompts(next(iter(asked.values())))
    questions = list(dict.fromkeys(name for name, _ in prompts))
    shown = set(questions[:_QUESTIONS_SHOWN])
    rows = {_key(name, turn): _prompt(text, turn) for (name, turn), text in prompts.items() if name in shown}
    left = len(questions) - len(shown)
    places = ", ".join(f"{name}: {item.id}" for name, item in asked.items())
    more = f"{plural(left, 'more question')} and the answers to them are in the artefacts ({places})." if left else ""
    table = _table(rows, answers, plural(len(shown), "question"))
    return Table(table.columns, table.rows, table.title, " ".join(filter(None, (table.note, more))))


def _table(prompts: Mapping[str, str], answers: Mapping[str, Mapping[str, _Said]], title: str) -> Table:
    """A row for each prompt, a column for each model."""
    columns = (Column("prompt", LONG), *(Column(name, LONG) for name in answers))
    rows = tuple(
        (_bounded(prompt), *(by_key[key].text if key in by_key else ABSENT for by_key in answers.values()))
        for key, prompt in prompts.items()
    )
    is_cut = any(by_key[key].is_cut for by_key in answers.values() for key in prompts if key in by_key)
    return Table(columns, rows, title, note=_CUT if is_cut else "")


def _prompts(item: Artefact) -> dict[tuple[str, int], str]:
    table = datasets.load_from_disk(str(item.folder / "data"))
    return dict(zip(zip(table["id"], table["turn"], strict=True), table["prompt"], strict=True))


def _table_answers(item: Artefact) -> dict[str, _Said]:
    table = datasets.load_from_disk(str(item.folder / "data"))
    return {_key(row["id"], row["turn"]): _said(row["answer"], row["ended"], row["reason"]) for row in table}


def _sample_answers(answers: Mapping[str, Any]) -> dict[str, _Said]:
    return {key: _said(answer["answer"], answer["is_ended"], None) for key, answer in answers.items()}


def _key(name: str, turn: int) -> str:
    return f"{name}/{turn}"


def _prompt(text: str, turn: int) -> str:
    return text if turn == 0 else f"(turn {turn + 1}) {text}"


def _said(text: str | None, is_ended: bool, reason: str | None) -> _Said:
    if text is None:
        return _Said(f"(no answer: {reason})")
    if is_ended:
        return _Said(_bounded(text) if text.strip() else "(empty)")
    return _Said(f"{_bounded(text)}\N{HORIZONTAL ELLIPSIS}", is_cut=True)


def _bounded(text: str) -> str:
    """A text of bearable length, with what is left out said."""
    text = text.strip()
    left = len(text) - _CHARS_SHOWN
    return text if left <= 0 else f"{text[:_CHARS_SHOWN]} [{count(left)} more characters are in the artefact]"


def _in_numbers(asked: Mapping[str, Artefact]) -> Table:
    """How many answers each model gave, and what is suspicious about them."""
    unanswered = any(item.metric("unanswered") for item in asked.values())
    columns = (
        *words("model"),
        *numbers("answers", "tokens each", "empty", "cut at the limit", "4-grams repeated"),
        *(words("no answer") if unanswered else ()),
    )
    rows = tuple(
        (
            name,
            f"{count(item.metric('answers'))} of {count(item.metric('asked'))}",
            decimals(item.metric("mean_tokens"), 0),
            share(item.metric("empty_share")),
            share(item.metric("truncated_share")),
            share(item.metric("seq_rep_4")),
            *((_reasons(item.metric("unanswered")),) if unanswered else ()),
        )
        for name, item in asked.items()
    )
    note = (
        "Repeated 4-grams of an answer's words (seq-rep-4): 1 minus the different ones over all of them; a model that "
        "goes round in circles comes near 100%."
    )
    return Table(columns, rows, "Answers in numbers", note=note)


def _reasons(unanswered: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count(number)}" for reason, number in unanswered.items())

"""Questions for models as one table: from a benchmark's file, conversations or prompts, with reference answers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import datasets

from deita_train.data.conversations import UnusableRow, merge_roles
from deita_train.data.drawing import draw_sizes, drawn_rows
from deita_train.data.intake import Account, IntakeReport, RowIds, RowSource, chosen_format
from deita_train.data.question_formats import (
    Question,
    columns_read,
    detect_question_format,
    id_columns,
    references_for,
    to_question,
)
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError

_TEXT = datasets.Value("string")
FEATURES = datasets.Features(
    {
        "id": _TEXT, "turns": datasets.List(_TEXT), "category": _TEXT, "references": datasets.List(_TEXT),
        "system": _TEXT, "baseline": _TEXT, "baseline_name": _TEXT, "subset": _TEXT,
    }
)  # fmt: skip


@dataclass(frozen=True)
class QuestionReport(IntakeReport):
    """What became of the rows.

    Attributes:
        format: of the rows.
        turns: all turns of all questions.
        categories: the number of questions of each.
        with_reference: questions that have a reference answer for a turn.
        references_unused: entries of the file of references that belong to none of the questions.
    """

    format: str
    turns: int
    categories: dict[str, int]
    with_reference: int
    references_unused: int


@dataclass(frozen=True)
class _Reference:
    """One entry of a file of references, and where it stands."""

    texts: Any
    where: str


@dataclass
class _Table:
    """The questions read so far, by id."""

    ids: RowIds
    questions: dict[str, Question] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    columns: set[str] = field(default_factory=set)


def build_questions(
    source: RowSource, references: Iterable[SourceRow] | None = None
) -> tuple[datasets.Dataset, QuestionReport]:
    """Read a source of questions into a table; the ids are the rows' own, else "<source name>:<row index>".

    Args:
        source: its format is recognised by the columns.
        references: rows of a file of reference answers in FastChat's form; they take the place of the questions' own.

    Raises:
        UserError: an id repeats, the rows have no known form or none is usable, a reference is malformed, or none of
            them belongs to a question.
    """
    format, rows = chosen_format(source.rows, detect_question_format)
    table = _Table(RowIds(source.name, id_columns(format)))
    roles = merge_roles(source.roles)
    for row in rows:
        table.columns.update(row.row)
        try:
            question = to_question(row.row, format, roles)
            if not source.wants([{"role": "user", "content": question.turns[0]}]):
                table.account.rows_outside_share += 1
                continue
            table.questions[table.ids.add(row)] = question
            table.account.rows_in += 1
        except UnusableRow as verdict:
            table.account.drop(row, verdict)
    if not table.questions:
        raise table.account.nothing_usable([source.name])
    unused = 0 if references is None else _refer(table.questions, references)
    _draw(source, table)
    return _dataset(table.questions), _report(table, format, unused)


def _refer(questions: dict[str, Question], rows: Iterable[SourceRow]) -> int:
    """Give the questions the references of a file; returns how many entries belong to no question."""
    found = _read_references(rows)
    used = [name for name in found if name in questions]
    if not used:
        raise UserError(
            f"{next(iter(found.values())).where}: none of the {len(found)} references belongs to a question: "
            f"question_id {next(iter(found))!r} is not among the questions, whose first id is "
            f"{next(iter(questions))!r}. Check that both files belong together."
        )
    for name in used:
        question, reference = questions[name], found[name]
        try:
            texts = references_for(reference.texts, len(question.turns))
        except UnusableRow as verdict:
            raise UserError(f"{reference.where}: {verdict.detail} (question {name!r}); correct the file.") from None
        questions[name] = replace(question, references=texts)
    return len(found) - len(used)


def _read_references(rows: Iterable[SourceRow]) -> dict[str, _Reference]:
    """The references by the id of their question."""
    found: dict[str, _Reference] = {}
    for row in rows:
        name = row.row.get("question_id")
        if type(name) not in (str, int) or name == "":
            raise UserError(f"{row.where}: no question_id; a row of references has question_id and choices.")
        if str(name) in found:
            raise UserError(
                f"question_id {str(name)!r} is used twice among the references: at {found[str(name)].where} and "
                f"{row.where}; leave one out."
            )
        found[str(name)] = _Reference(_reference_texts(row), row.where)
    return found


def _reference_texts(row: SourceRow) -> Any:
    """The answers of a row in FastChat's form: those of its first choice."""
    try:
        return row.row["choices"][0]["turns"]
    except (KeyError, IndexError, TypeError):
        raise UserError(
            f"{row.where}: no choices with turns, which FastChat's file of reference answers has; correct the file."
        ) from None


def _draw(source: RowSource, table: _Table) -> None:
    """Leave only the drawn questions, if only some are wanted."""
    if source.draw is None:
        return
    ids = list(table.questions)
    size = draw_sizes({source.name: source.draw}, {source.name: len(ids)})[source.name]
    drawn = drawn_rows(ids, size, source.draw.seed)
    table.questions = {name: table.questions[name] for name, is_drawn in zip(ids, drawn, strict=True) if is_drawn}
    table.account.drops["not_sampled"] = len(ids) - size


def _dataset(questions: Mapping[str, Question]) -> datasets.Dataset:
    rows = [{"id": name, **_columns(question)} for name, question in questions.items()]
    return datasets.Dataset.from_list(rows, features=FEATURES)


def _columns(question: Question) -> dict[str, Any]:
    references = None if question.references is None else list(question.references)
    return {**vars(question), "turns": list(question.turns), "references": references}


def _report(table: _Table, format: Any, references_unused: int) -> QuestionReport:
    questions = list(table.questions.values())
    categories = Counter(question.category for question in questions if question.category is not None)
    return QuestionReport(
        **table.account.closed(len(questions), table.columns - columns_read(format), {}),
        format=format,
        turns=sum(len(question.turns) for question in questions),
        categories=dict(categories),
        with_reference=sum(question.references is not None for question in questions),
        references_unused=references_unused,
    )


def question_lines(report: QuestionReport) -> Iterator[str]:
    """What there is to ask, in words: how many questions and turns, and what of the references was not used."""
    yield (
        f"{report.rows_out:,} questions with {report.turns:,} turns, {report.with_reference:,} of them with a "
        "reference answer"
    )
    if report.references_unused:
        yield f"{report.references_unused:,} of the references belong to no question and are not used"

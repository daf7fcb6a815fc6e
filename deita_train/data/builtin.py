"""Generated data, by the names that recipes use."""

from collections.abc import Callable
from typing import Any

from deita_train.data.everyday import everyday_questions
from deita_train.data.quickstart import (
    make_heldout,
    make_heldout_preferences,
    make_pool,
    make_preferences,
    make_pretraining_rows,
    make_questions,
    make_scorer_rows,
)
from deita_train.data.sources import SourceRow

MakeRows = Callable[[int, int], list[dict[str, Any]]]
CONVERSATIONS: dict[str, MakeRows] = {
    "quickstart": make_pool,
    "quickstart_heldout": make_heldout,
    "quickstart_pretraining": make_pretraining_rows,
}
PREFERENCES: dict[str, MakeRows] = {
    "quickstart_preferences": make_preferences,
    "quickstart_heldout_preferences": make_heldout_preferences,
}

QUESTIONS: dict[str, MakeRows] = {
    "everyday": lambda num_rows, seed: everyday_questions()[:num_rows],
    "quickstart_questions": make_questions,
}


def builtin_conversations(name: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated conversations as source rows."""
    return _source_rows(name, CONVERSATIONS[name](num_rows, seed))


def builtin_preferences(name: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated preference pairs as source rows."""
    return _source_rows(name, PREFERENCES[name](num_rows, seed))


def builtin_questions(name: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated questions, or those of the package, as source rows."""
    return _source_rows(name, QUESTIONS[name](num_rows, seed))


def builtin_scorer_rows(dimension: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated instruction/response/score rows as source rows."""
    assert dimension in ("complexity", "quality")
    rows = make_scorer_rows(dimension, num_rows, seed)  # type: ignore[arg-type]
    return _source_rows(f"quickstart {dimension} data", rows)


def _source_rows(name: str, rows: list[dict[str, Any]]) -> list[SourceRow]:
    return [SourceRow(index, f"{name}, row {index}", row) for index, row in enumerate(rows)]

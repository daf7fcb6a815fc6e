"""The data that the project generates itself, by the names that recipes use."""

from collections.abc import Callable
from typing import Any

from deita_train.data.quickstart import make_heldout, make_pool, make_pretraining_rows, make_scorer_rows
from deita_train.data.sources import SourceRow

CONVERSATIONS: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    "quickstart": make_pool,
    "quickstart_heldout": make_heldout,
    "quickstart_pretraining": make_pretraining_rows,
}


def builtin_conversations(name: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated conversations as source rows."""
    rows = CONVERSATIONS[name](num_rows, seed)
    return [SourceRow(index, f"{name}, row {index}", row) for index, row in enumerate(rows)]


def builtin_scorer_rows(dimension: str, num_rows: int, seed: int) -> list[SourceRow]:
    """Generated instruction/response/score rows as source rows."""
    assert dimension in ("complexity", "quality")
    rows = make_scorer_rows(dimension, num_rows, seed)  # type: ignore[arg-type]
    return [SourceRow(index, f"quickstart {dimension} data, row {index}", row) for index, row in enumerate(rows)]

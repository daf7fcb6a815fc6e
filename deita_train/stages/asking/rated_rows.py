"""What the stages that ask about each row of the pool share: the turns, and the table of a column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import datasets

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.evolve.elimination import is_final
from deita_train.evolve.reading import Unusable
from deita_train.llm.client import Asker
from deita_train.stages.asking.asker import spent
from deita_train.stages.context import StageContext, StageResult

Turn = tuple[int, str, str | None]
"""The number of the row, the instruction and the response."""


def pool_of(context: StageContext) -> datasets.Dataset:
    """The rows to ask about."""
    return datasets.load_from_disk(str(context.parents["pool"] / "data"))


def turns_of(pool: datasets.Dataset) -> list[Turn]:
    """Every user turn."""
    return [(number, *turn) for number, row in enumerate(pool) for turn in user_turns(row["messages"])]


def is_settled(outcome: object) -> bool:
    """Whether an answer can be used, or asking again would not help."""
    return not isinstance(outcome, Unusable) or is_final(outcome.reason)


def leave_column(
    context: StageContext,
    asker: Asker,
    column: str,
    feature: Any,
    values: Sequence[Any],
    reasons: Sequence[str | None],
    found: Mapping[str, Any] = MappingProxyType({}),
) -> StageResult:
    """Write a value for each row, null with a reason where there is none; `found` are further metrics.

    Raises:
        UserError: no row has one.
    """
    pool = pool_of(context)
    if all(value is None for value in values):
        raise UserError(f"{context.label}: no answer could be used: {dict(Counter(reasons))}. Read the answers' log.")
    table = {"id": list(pool["id"]), column: list(values), "reason": list(reasons)}
    text = datasets.Value("string")
    features = datasets.Features({"id": text, column: feature, "reason": text})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(context.data_dir))
    nulls = Counter(reason for reason in reasons if reason is not None)
    metrics = {"rows": len(pool), "nulls": dict(nulls), **found, **spent(asker)}
    return StageResult(len(pool), len(pool), metrics=metrics)

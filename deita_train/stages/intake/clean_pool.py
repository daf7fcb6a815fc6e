"""Stage `clean_pool`: the pool without copies, mixed by source.

`data/` has the rows that are left in the pool's order, `trace/` every row: why it was left out, which row it repeats,
and how similar the two are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column, iter_columns, texts_by_code
from deita_train.data.conversations import user_turns
from deita_train.data.copies import Copies, find_copies
from deita_train.data.drawing import Draw, drawn_from_sources
from deita_train.data.intake import EXAMPLES_PER_REASON
from deita_train.data.pool import PoolReport
from deita_train.data.row_table import as_dataset
from deita_train.data.texts import TextColumn, order_of_texts
from deita_train.errors import UserError
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, drop_lines, read_once

NOT_IN_MIX = "not_in_mix"
_SEVERAL = 3


@dataclass(frozen=True)
class Cleaned:
    """What became of the N rows of a pool: the copies by place, and which rows are left, `[N]` bool."""

    copies: Copies
    left: np.ndarray

    @property
    def reasons(self) -> pa.Array:
        """Why each row is left out, text; null for one that is not."""
        return pc.coalesce(self.copies.reasons(), texts_by_code(np.where(self.left, -1, 0), [NOT_IN_MIX]))


def run(context: StageContext) -> StageResult:
    """Clean, and write what is left and what became of every row."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    cleaned = clean(pool, context.identity, lambda done: context.progress.update(done, len(pool), "rows compared"))
    rows = pool.select(np.flatnonzero(cleaned.left))
    rows.save_to_disk(str(context.data_dir))
    _trace(pool, cleaned).save_to_disk(str(context.work_dir / "trace"))
    drops = _drops(cleaned)
    metrics = {
        "rows_in": len(pool),
        "rows_out": len(rows),
        "drops": drops,
        "examples": _examples(_ids(pool), cleaned),
        "sources": dict(sorted(_counts(arrow_column(rows, "source")).items())),
        "mean_turns": float(np.mean(np.fromiter(_turns(rows), np.int64, len(rows)))),
    }
    return StageResult(len(pool), len(rows), drops, metrics)


def clean(
    pool: datasets.Dataset, identity: Mapping[str, Any], on_row: Callable[[int], None] = lambda done: None
) -> Cleaned:
    """Find the copies, then draw from what is left by source.

    Raises:
        UserError: the mix names a source that the pool does not have, or asks for more rows than a source has left.
    """
    ids, copies = _ids(pool), Copies(len(pool))
    if identity["deduplicate"] is not None:
        columns = [name for name in ("messages", "tools") if name in pool.column_names]
        rows = pool.select_columns(columns)
        copies = find_copies(ids, rows.__getitem__, **identity["deduplicate"], on_row=on_row)
    left = np.ones(len(pool), dtype=bool)
    left[copies.places] = False
    if identity["mix"] is not None:
        left = _mixed(ids, arrow_column(pool, "source"), left, identity["mix"])
    return Cleaned(copies, left)


def cleaned_rows(
    pool: datasets.Dataset, report: PoolReport, identity: Mapping[str, Any]
) -> tuple[datasets.Dataset, PoolReport]:
    """The rows that are left of a pool that was read, and the account of them."""
    cleaned = clean(pool, identity)
    rows = pool.select(np.flatnonzero(cleaned.left))
    drops, examples = _drops(cleaned), _examples(_ids(pool), cleaned)
    return rows, replace(report, rows_in=len(pool), rows_out=len(rows), drops=drops, examples=examples)


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows are left, and why the others are not."""
    _, report = read_once(stage)
    yield f"{stage.label}: {report.rows_out:,} of {report.rows_in:,} rows are left"
    yield from drop_lines(report.drops, report.examples)


def _mixed(ids: TextColumn, sources: pa.ChunkedArray, left: np.ndarray, mix: Mapping[str, Any]) -> np.ndarray:
    """Which rows are left, `[N]` bool, once each source that the mix names is drawn from."""
    coded = sources.combine_chunks().dictionary_encode()
    codes = np.where(left, coded.indices.to_numpy(), -1)
    of_sources = {name: np.flatnonzero(codes == code) for code, name in enumerate(coded.dictionary.to_pylist())}
    # By the first row that is left, as they stand in the pool.
    places = {name: rows for name, rows in sorted(of_sources.items(), key=_first_row) if len(rows)}
    unknown = sorted({*mix["weights"], *mix["rows"]} - places.keys())
    if unknown:
        raise UserError(
            f"pool.mix names {', '.join(map(repr, unknown))}, and the rows are of {_some(sorted(places))}. A source is "
            "the column source of a row, else the name of its file or dataset."
        )
    draws: dict[str, Draw | None] = dict.fromkeys(places)
    draws |= {name: Draw(mix["seed"], weight=weight) for name, weight in mix["weights"].items()}
    draws |= {name: Draw(mix["seed"], rows=rows) for name, rows in mix["rows"].items()}
    drawn = drawn_from_sources(draws, {name: ids.at(of_source) for name, of_source in places.items()})
    assert drawn is not None, "a mix names a source"
    mixed = np.zeros(len(ids), dtype=bool)
    mixed[np.concatenate(list(places.values()))[drawn]] = True
    return mixed


def _first_row(source: tuple[str, np.ndarray]) -> int:
    return int(source[1][0]) if len(source[1]) else -1


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SEVERAL])) + (f" and {len(names) - _SEVERAL} more" * (len(names) > _SEVERAL))


def _drops(cleaned: Cleaned) -> dict[str, int]:
    return dict(sorted(_counts(cleaned.reasons.drop_null()).items()))


def _counts(texts: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"].as_py() for entry in pc.value_counts(texts)}


def _ids(rows: datasets.Dataset) -> TextColumn:
    return TextColumn(arrow_column(rows, "id"))


def _turns(rows: datasets.Dataset) -> Iterator[int]:
    """The user turns of each row."""
    return (len(user_turns(messages)) for (messages,) in iter_columns(rows, ["messages"]))


def _examples(ids: Sequence[str], cleaned: Cleaned) -> dict[str, list[str]]:
    """For each reason of a copy its first rows, by id, with what they repeat."""
    examples: dict[str, list[str]] = {}
    for place in map(int, order_of_texts(ids)):
        if place not in cleaned.copies:
            continue
        copy = cleaned.copies[place]
        of_reason = examples.setdefault(copy.reason, [])
        if len(of_reason) < EXAMPLES_PER_REASON:
            of_reason.append(f"{ids[place]} repeats {ids[copy.of]} (similarity {copy.similarity:.3f})")
    return examples


def _trace(pool: datasets.Dataset, cleaned: Cleaned) -> datasets.Dataset:
    ids, copies = arrow_column(pool, "id"), cleaned.copies
    columns = {
        "id": ids,
        "source": arrow_column(pool, "source"),
        "drop_reason": cleaned.reasons,
        "repeats": ids.take(copies.repeats()),
        "similarity": copies.similarities(),
    }
    return as_dataset(pa.table(columns))

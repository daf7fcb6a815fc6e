"""Reuse by row: results of items that a published artefact already holds are copied from there.

An item is one model input, identified by the hash of its token ids. The run says which artefacts may be used
(`StageContext.reusable`): those of the same kind, configuration and model, over other pools.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deita_train.data.texts import GrowingTexts, TextColumn, as_column, numbers_of
from deita_train.errors import UserError, raise_machine_fault
from deita_train.inference.batches import BatchPlan
from deita_train.inference.row_file import RowFile
from deita_train.inference.shards import allocate
from deita_train.stages.context import StageContext
from deita_train.stages.inference.batched_pass import log, plan_pass

_REUSED = "reused.parquet"
_JOINED = "joined.matrix"
_ROWS_PER_PART = 1024
Item = TypeVar("Item")
_HASHES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Stored:
    """The columns of a published table with the hash and value of each item, one per row or equally long lists."""

    hashes: str
    values: str


def input_hash(ids: Sequence[int] | np.ndarray) -> str:
    """32 hex digits: BLAKE2b with 16 bytes over the token ids as little-endian int32."""
    return hashlib.blake2b(np.asarray(ids, dtype="<i4").tobytes(), digest_size=16).hexdigest()


def input_hashes(inputs: RowFile) -> TextColumn:
    """The hash of each item, on disk."""
    hashes = GrowingTexts()
    for ids in inputs.each():
        hashes.append(input_hash(ids))
    return hashes.column()


def plan_missing(
    context: StageContext,
    inputs: RowFile,
    stored: Stored,
    facts: dict[str, Any],
    groups: np.ndarray | None = None,
) -> None:
    """Copy the items that other artefacts hold, and plan batches over the rest, within `groups` of items if given.

    The plan's positions count the missing items; `facts["missing"]` has their numbers among all. A restart that finds
    the preparation complete does not repeat this, so the missing items never change while a stage runs.
    """
    missing = np.flatnonzero(~_keep(context, inputs, stored))
    of_missing = None if groups is None else groups[missing]
    plan_pass(context, inputs.lengths[missing], {**facts, "missing": missing}, of_missing)


def join_reused(
    context: StageContext, plan: BatchPlan, computed: np.ndarray | None, num_items: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The values of all items in order, [num_items] or [num_items, D], and metrics on what was reused.

    `computed` are those of the missing items, None if nothing was missing.

    Raises:
        UserError: the copies made by the preparation were damaged.
    """
    missing = plan.facts["missing"]
    sources: Counter[str] = Counter()
    values = computed
    if len(missing) < num_items:
        values = None
        for items, source, part in reused_items(context):
            if values is None:
                values = allocate(context.work_dir / _JOINED, (num_items, *part.shape[1:]), part.dtype)
            values[items] = part
            sources.update(source)
        assert values is not None
        if computed is not None:
            assert computed.dtype == values.dtype, f"{computed.dtype} computed and {values.dtype} reused"
            values[missing] = computed
    assert len(missing) + sources.total() == num_items, "an item was neither computed nor reused"
    metrics = {"rows_reused": sources.total(), "reused_from": dict(sorted(sources.items()))}
    return np.empty(0, np.float32) if values is None else values, metrics


def find_items(
    hashes: Sequence[str], tables: Iterable[tuple[Path, Iterable[str | None]]]
) -> Iterator[tuple[Path, np.ndarray]]:
    """For each table (its folder and its items' hashes) the wanted items that no earlier table has.

    Yields:
        The folder, and pairs of a position in its table and the number of the wanted item, int64 [N, 2], by position.
    """
    column = TextColumn(as_column(hashes).in_one_piece())
    wanted = numbers_of(column)
    order = np.argsort(wanted, kind="stable")
    wanted = wanted[order]
    left = len(wanted)
    taken = np.zeros(len(wanted), dtype=bool)  # by the first place of equal hashes
    for folder, there in tables:
        if not left:
            return
        found = [*_matches(column, wanted, order, taken, there)]
        if found:
            pairs = np.concatenate(found)
            left -= len(pairs)
            yield folder, pairs


def _matches(
    column: TextColumn, wanted: np.ndarray, order: np.ndarray, taken: np.ndarray, there: Iterable[str | None]
) -> Iterator[np.ndarray]:
    """The pairs of one table, [n, 2] each; marks in `taken` what was found."""
    start = 0
    for part in _parts(there):
        known = numbers_of(part)
        first, beyond = np.searchsorted(wanted, known, "left"), np.searchsorted(wanted, known, "right")
        for place in np.flatnonzero(first < beyond):
            if not taken[first[place]] and part[place] is not None:
                taken[first[place]] = True
                items = order[first[place] : beyond[place]]
                same = column.column.take(pa.array(items))
                assert pc.all(pc.equal(same, part[place])).as_py(), "two hashes with one number"
                yield np.column_stack([np.full(len(items), start + place), items])
        start += len(part)


def _keep(context: StageContext, inputs: RowFile, stored: Stored) -> np.ndarray:
    """Copy the items found into the prepared data; returns which were, bool [N]."""
    reused = np.zeros(len(inputs), dtype=bool)
    if not context.reusable:
        return reused
    tables = ((artefact, _hashes(context, artefact, stored.hashes)) for artefact in context.reusable)
    writer: pq.ParquetWriter | None = None
    counts: dict[str, int] = {}
    for artefact, found in find_items(input_hashes(inputs), tables):
        for table in _taken(_chunks(context, artefact, stored.values), found, artefact.name):
            if writer is None:
                path = context.prepared_dir / _REUSED
                writer = pq.ParquetWriter(path, table.schema, write_page_checksum=True)
            writer.write_table(table)
        counts[artefact.name] = len(found)
        reused[found[:, 1]] = True
    if writer is not None:
        writer.close()
        places = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
        log(f"{context.label}: {reused.sum():,} of {len(inputs):,} inputs were computed before: {places}")
    return reused


def _taken(chunks: Iterable[pa.Array], found: np.ndarray, source: str) -> Iterator[pa.Table]:
    """The values of the items found, part by part; only these rows of a memory-mapped table are read."""
    places, items = found.T
    start = 0
    for chunk in chunks:
        first, last = np.searchsorted(places, (start, start + len(chunk)))
        if first < last:
            values = chunk.take(pa.array(places[first:last] - start))
            assert values.null_count == 0, f"{source} has a hash without a value"
            sources = pa.array([source] * len(values))
            yield pa.table({"item": pa.array(items[first:last]), "source": sources, "value": values})
        start += len(chunk)


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, a bounded number at once."""
    left = iter(items)
    while part := list(islice(left, _HASHES_AT_ONCE)):
        yield part


def _hashes(context: StageContext, artefact: Path, column: str) -> Iterator[str | None]:
    for chunk in _chunks(context, artefact, column):
        yield from chunk.to_pylist()


def _chunks(context: StageContext, artefact: Path, column: str) -> list[pa.Array]:
    """A memory-mapped column of a published table with one entry per item, in parts; lists are flattened."""
    try:
        chunks = datasets.load_from_disk(str(artefact / "data")).data.column(column).chunks
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise_machine_fault(error, artefact)
        raise UserError(
            f"{context.label}: the table of {artefact}, which may hold some of these rows, cannot be read ({error}). "
            "Remove that folder (it is rebuilt when needed), or state reuse_rows: false."
        ) from error
    return [
        part.flatten() if pa.types.is_list(part.type) else part
        for chunk in chunks
        for part in (chunk.slice(start, _ROWS_PER_PART) for start in range(0, len(chunk), _ROWS_PER_PART))
    ]


def reused_items(context: StageContext) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
    """The items copied from other artefacts, where they were found, and their values, part by part; some were copied.

    Raises:
        UserError: the copies are damaged.
    """
    path = context.prepared_dir / _REUSED
    try:
        for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches(batch_size=_ROWS_PER_PART):
            yield batch["item"].to_numpy(), batch["source"].to_pylist(), _to_numpy(batch["value"])
    except (OSError, pa.ArrowException) as error:
        raise_machine_fault(error, path)
        raise UserError(
            f"{context.label}: {path} is damaged ({str(error).splitlines()[0]}). Remove {context.prepared_dir.parent} "
            "and run again."
        ) from error


def _to_numpy(values: pa.Array) -> np.ndarray:
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy()
    return values.flatten().to_numpy().reshape(len(values), -1)

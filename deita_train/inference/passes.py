"""A pass over items in planned batches, kept in shards, so that a kill costs only the batches not yet written.

Each rank takes every `world_size`-th batch. A shard holds whole batches, is fsynced and appears by one rename: what is
there is complete. After a restart, at any world size, the missing batches run and no other.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.durable import fsync_folder

BATCH, ITEM = "batch", "item"
Columns = dict[str, np.ndarray]


@dataclass
class Pass:
    """One pass of one rank.

    `compute` maps the positions of a batch to columns of equal length, one entry per position: float arrays [B] or
    [B, D].
    """

    batches: Sequence[Sequence[int]]
    shard_dir: Path
    rank: int
    world_size: int
    compute: Callable[[Sequence[int]], Columns]
    on_progress: Callable[[int, int], None]
    flush_seconds: float = 20.0
    _pending: list[pa.Table] = field(default_factory=list)

    def run(self) -> None:
        """Compute this rank's missing batches."""
        self.shard_dir.mkdir(parents=True, exist_ok=True)
        done = completed_batches(self.shard_dir)
        mine = [number for number in range(self.rank, len(self.batches), self.world_size) if number not in done]
        flushed = time.monotonic()
        for count, number in enumerate(mine):
            positions = self.batches[number]
            self._pending.append(_to_table(number, positions, self.compute(positions)))
            self.on_progress(len(done) + (count + 1) * self.world_size, len(self.batches))
            if time.monotonic() - flushed > self.flush_seconds:
                self._flush()
                flushed = time.monotonic()
        self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        first = table[BATCH][0].as_py()
        path = self.shard_dir / f"{first:08d}-{len(self._pending):06d}.parquet"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(self.shard_dir)
        self._pending = []


def completed_batches(shard_dir: Path) -> set[int]:
    """The numbers of the batches that are on disk."""
    done: set[int] = set()
    for path in shard_dir.glob("*.parquet"):
        done.update(pq.read_table(path, columns=[BATCH])[BATCH].to_pylist())
    return done


def collect(shard_dir: Path, num_items: int) -> dict[str, np.ndarray]:
    """The columns of every item in item order: arrays [num_items] or [num_items, D]. Every item exactly once."""
    tables = [pq.read_table(path) for path in sorted(shard_dir.glob("*.parquet"))]
    table = pa.concat_tables(tables) if tables else pa.table({ITEM: pa.array([], pa.int64())})
    items = table[ITEM].to_numpy()
    assert len(items) == num_items and len(set(items.tolist())) == num_items, "an item is missing or came twice"
    order = np.argsort(items)
    return {name: _to_array(table[name])[order] for name in table.column_names if name not in (BATCH, ITEM)}


def write_plan(path: Path, batches: Sequence[Sequence[int]], facts: Mapping[str, Any]) -> None:
    """Keep the planned batches beside the prepared data."""
    path.write_text(json.dumps({"batches": [list(batch) for batch in batches], **facts}))


def read_plan(path: Path) -> dict[str, Any]:
    """The planned batches and what was kept with them."""
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def _to_table(number: int, positions: Sequence[int], columns: Columns) -> pa.Table:
    arrays: dict[str, pa.Array] = {
        BATCH: pa.array([number] * len(positions), pa.int64()),
        ITEM: pa.array(list(positions), pa.int64()),
    }
    for name, values in columns.items():
        assert len(values) == len(positions), name
        arrays[name] = _to_arrow(values)
    return pa.table(arrays)


def _to_arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _to_array(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    chunks: Iterable[pa.Array] = column.chunks
    width = column.type.list_size
    return np.concatenate([chunk.flatten().to_numpy().reshape(-1, width) for chunk in chunks])

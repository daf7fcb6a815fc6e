"""Shards: files with the results of whole batches, which survive a kill.

A shard is fsynced and appears by one rename. It can still be damaged later, by a disk or by hand, so a restart checks
every shard against the plan before its batches count as done.
"""

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.errors import raise_machine_fault
from deita_train.inference.batches import BatchPlan
from deita_train.store.atomic_io import fsync_folder

# For each row: its batch's number, its position, and the number of pieces its batch was computed in.
BATCH, ITEM, PARTS = "batch", "item", "parts"
Columns = dict[str, np.ndarray]
_OTHER_BATCHES = "its batches are not the plan's"
# Decoding a part takes several times its own size.
_ROWS_PER_PART = 256


def batch_table(number: int, positions: Sequence[int], columns: Columns, parts: int) -> pa.Table:
    """One batch's results: a row per position; float columns [B] or [B, D]."""
    arrays: dict[str, pa.Array] = {
        BATCH: pa.array([number] * len(positions), pa.int64()),
        ITEM: pa.array(list(positions), pa.int64()),
        PARTS: pa.array([parts] * len(positions), pa.int32()),
    }
    for name, values in columns.items():
        assert len(values) == len(positions), name
        arrays[name] = _to_arrow(values)
    return pa.table(arrays)


def write_shard(folder: Path, batches: Sequence[pa.Table], part: str = "") -> None:
    """Write whole batches as one shard; write nothing if there are none. Its name tells the part that computed it."""
    if not batches:
        return
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.concat_tables(batches)
    name = f"{table[BATCH][0].as_py():08d}-{len(batches):06d}"
    path = folder / f"{name}.{part}.parquet" if part else folder / f"{name}.parquet"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file, write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(folder)


def check_shards(
    folder: Path, plan: BatchPlan, columns: Iterable[str], own: Set[int] | None = None, part: str = ""
) -> tuple[set[int], dict[Path, str]]:
    """The numbers of the finished batches, and the shards that cannot be trusted, each with the reason.

    With `own`, the batches of a part, only shards that hold one of them are looked at; those of the other parts of
    the same division, of which there may be many thousands, are passed over by their names.
    """
    done: set[int] = set()
    distrusted: dict[Path, str] = {}
    wanted = {BATCH, ITEM, PARTS, *columns}
    for path in sorted(folder.glob("*.parquet")):
        if own is not None and (_is_of_sibling(path, part) or own.isdisjoint(_numbers_in(path))):
            continue
        numbers, reason = _read_batches(path, plan, wanted)
        if not reason and done & numbers:
            reason = f"batch {min(done & numbers)} is in another shard too"
        if reason:
            distrusted[path] = reason
        else:
            done |= numbers
    return done, distrusted


def remove_leftovers(folder: Path, distrusted: Iterable[Path], own: Set[int] | None = None) -> None:
    """Remove untrusted shards and the temporary files of killed processes. Nobody may be writing there.

    With `own`, only temporary files of these batches are removed, and others may be written meanwhile.
    """
    temporary = [path for path in folder.glob("*.tmp") if own is None or _first_number(path) in own]
    for path in (*distrusted, *temporary):
        path.unlink(missing_ok=True)  # another part may have found the same shard


def _is_of_sibling(path: Path, part: str) -> bool:
    """Whether another part of the same division wrote a shard, by its name: `3-of-64` and `4-of-64`."""
    written_by = path.name.split(".")[1]
    return written_by != part and written_by.partition("-of-")[2] == part.partition("-of-")[2] != ""


def _first_number(path: Path) -> int:
    """The number of the first batch in a shard, by the name of its file."""
    return int(path.name.partition("-")[0])


def _numbers_in(path: Path) -> set[int]:
    """The numbers of the batches in a shard, or of the first one where it cannot be read; another process may be
    removing it."""
    try:
        return {int(number) for number in pq.read_table(path, columns=[BATCH])[BATCH].unique().to_pylist()}
    except FileNotFoundError:
        return set()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise_machine_fault(error, path)
        return {_first_number(path)}


def collect(folder: Path, num_items: int) -> Columns:
    """The columns of all items in item order: arrays [num_items], and memory-mapped files [num_items, D].

    Such a matrix is `<column>.matrix` in `folder`. Memory holds one shard at a time. Asserts that every item occurs
    exactly once.
    """
    columns: Columns = {}
    found = np.zeros(num_items, dtype=bool)
    for path in sorted(folder.glob("*.parquet")):
        for items, part in shard_parts(path):
            fresh = len(np.unique(items)) == len(items) and items.max() < len(found) and not found[items].any()
            assert fresh, "an item is missing or came twice"
            found[items] = True
            for name, values in part.items():
                if name not in columns:
                    columns[name] = allocate(folder / f"{name}.matrix", (len(found), *values.shape[1:]), values.dtype)
                columns[name][items] = values
    assert found.all(), "an item is missing or came twice"
    return columns


def shard_parts(path: Path) -> Iterator[tuple[np.ndarray, Columns]]:
    """The items of a shard, int64 [n], with their columns, part by part."""
    with pq.ParquetFile(path) as shard:
        for part in shard.iter_batches(batch_size=_ROWS_PER_PART):
            names = [name for name in part.schema.names if name not in (BATCH, ITEM, PARTS)]
            yield part[ITEM].to_numpy(), {name: _to_array(part[name]) for name in names}


def allocate(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array: [N] in memory, [N, D] in the memory-mapped file `path`."""
    return np.empty(shape, dtype) if len(shape) == 1 else np.memmap(path, dtype, "w+", shape=shape)


def split_batches(folder: Path) -> list[int]:
    """The numbers of the batches that did not fit in memory and were computed in pieces."""
    split: set[int] = set()
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path, columns=[BATCH, PARTS])
        split.update(table[BATCH].to_numpy()[table[PARTS].to_numpy() > 1].tolist())
    return sorted(split)


def _read_batches(path: Path, plan: BatchPlan, wanted: set[str]) -> tuple[set[int], str]:
    """The batches of a shard, or none and the reason why it cannot be trusted."""
    try:
        # Verify every page's checksum: an intact footer does not mean that the rest is intact.
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise_machine_fault(error, path)
        reason = str(error).splitlines()[0].rstrip(".")
        return set(), f"it cannot be read ({reason})"
    if set(table.column_names) != wanted:
        return set(), f"its columns are {', '.join(table.column_names)}"
    if not len(table) or any(table[name].type != pa.int64() or table[name].null_count for name in (BATCH, ITEM)):
        return set(), _OTHER_BATCHES
    batches, items = table[BATCH].to_numpy(), table[ITEM].to_numpy()
    first = np.flatnonzero(np.diff(batches, prepend=-1 - batches[:1]))
    numbers = batches[first]
    if numbers.min() < 0 or numbers.max() >= len(plan.batches) or len(np.unique(numbers)) < len(numbers):
        return set(), _OTHER_BATCHES
    planned = np.concatenate([plan.batches.order[slice(*plan.batches.starts[number:][:2])] for number in numbers])
    if not np.array_equal(items, planned) or not np.array_equal(batches, numbers.repeat(plan.batches.sizes[numbers])):
        return set(), "a batch in it is not what was planned"
    return set(numbers.tolist()), ""


def _to_arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _to_array(column: pa.Array) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    matrix: np.ndarray = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return matrix

"""The table of embeddings, `id` and `embedding` [D], in one record batch: one matrix in the mapped file."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import InMemoryTable

from deita_train.data.row_table import fingerprint
from deita_train.data.texts import TextColumn, as_column, places_of

STORED_TYPES = ("float32", "float16")
_ROWS_AT_ONCE = 4096


Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray


def write_embeddings(folder: Path, ids: Texts, matrix: np.ndarray, texts: Mapping[str, Texts] | None = None) -> None:
    """Write a `save_to_disk` folder with the rows of `matrix`, float32 or float16 [N, D], N at least 1.

    `matrix` may be a mapped file; it is never copied in memory. `texts` are further columns, with one text per row.
    """
    assert matrix.dtype.name in STORED_TYPES and matrix.ndim == 2 and len(matrix) == len(ids) > 0, matrix.shape
    table = _as_table({"id": ids, **(texts or {})}, matrix)
    datasets.disable_progress_bars()
    # datasets writes batches of 1,000 rows, each with its own buffer. So let it write one row and the metadata files,
    # then replace the rows by a single batch.
    datasets.Dataset(InMemoryTable(table.slice(0, 1)), fingerprint=fingerprint(table)).save_to_disk(str(folder))
    (file,) = folder.glob("*.arrow")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def embedded_ids(folder: Path) -> TextColumn:
    """The ids of the rows in the folder that have an embedding, in its order."""
    return TextColumn(datasets.load_from_disk(str(folder)).data.column("id"))


def embeddings_of(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """The embeddings of the rows with `ids`, float32 or float16 [N, D], from a folder with `id` and `embedding`.

    A read-only view of the mapped file if `ids` are the table's in its order, else the requested rows in a mapped file
    without a name. Either way only what is read enters memory, and the system may take it back.
    """
    table = datasets.load_from_disk(str(folder))
    parts = [_as_matrix(chunk) for chunk in table.data.column("embedding").chunks]
    matrix = parts[0] if len(parts) == 1 else np.concatenate(parts)  # several chunks: written by datasets itself
    places = places_of(ids, TextColumn(table.data.column("id")))
    assert (places >= 0).all(), "a row has no embedding"
    if len(places) == len(matrix) and (places == np.arange(len(matrix))).all():
        return matrix
    return _copied(matrix, places)


def _copied(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some rows of a matrix in a mapped file."""
    copied = unnamed_matrix((len(places), matrix.shape[1]), matrix.dtype)
    for start in range(0, len(places), _ROWS_AT_ONCE):
        copied[start : start + _ROWS_AT_ONCE] = matrix[places[start : start + _ROWS_AT_ONCE]]
    return copied


def unnamed_matrix(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """A matrix in a mapped file without a name, which goes with it."""
    return unnamed_array(shape[0] * shape[1], dtype).reshape(shape)


def unnamed_array(size: int, dtype: np.dtype) -> np.ndarray:
    """The same for numbers in one dimension."""
    if not size:
        return np.empty(0, dtype)
    with tempfile.TemporaryFile(prefix="deita-numbers-") as file:
        return np.memmap(file, dtype, "w+", shape=(size,))


def _as_table(texts: Mapping[str, Texts], matrix: np.ndarray) -> pa.Table:
    """The text columns, and the matrix as an Arrow column that shares its memory."""
    rows, width = matrix.shape
    numbers = pa.Array.from_buffers(
        pa.from_numpy_dtype(matrix.dtype), rows * width, [None, pa.py_buffer(np.ascontiguousarray(matrix))]
    )
    column = pa.FixedSizeListArray.from_arrays(numbers, width)
    columns = {name: _one_array(values) for name, values in texts.items()}
    table = pa.table({**columns, "embedding": column})
    # datasets reads a table's types from this metadata.
    return table.replace_schema_metadata(datasets.Features.from_arrow_schema(table.schema).arrow_schema.metadata)


def _one_array(texts: Texts) -> pa.Array:
    """The texts in one piece, in mapped files without names, so that nothing is held in memory."""
    column = as_column(texts).column.cast(pa.string())
    sizes = [pc.binary_length(chunk).to_numpy() for chunk in column.chunks]
    ends = unnamed_array(len(column) + 1, np.dtype(np.int32))
    ends[0] = 0
    np.cumsum(np.concatenate(sizes), out=ends[1:])
    letters = unnamed_array(int(ends[-1]), np.dtype(np.uint8))
    start = 0
    for chunk in column.chunks:
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        size = int(offsets[-1] - offsets[0])
        if size:
            letters[start : start + size] = np.frombuffer(chunk.buffers()[2], np.uint8, size, int(offsets[0]))
        start += size
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(ends), pa.py_buffer(letters))


def _as_matrix(chunk: pa.FixedSizeListArray) -> np.ndarray:
    """[N, D], sharing the chunk's memory."""
    matrix: np.ndarray = chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, chunk.type.list_size)
    return matrix

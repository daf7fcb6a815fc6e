from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deita_train.data.embeddings import embeddings_of, write_embeddings
from deita_train.stages.checks import content_digest

NUM_ROWS, WIDTH = 2500, 7  # the datasets library writes batches of 1,000 rows


def matrix(dtype="float32", rows=NUM_ROWS):
    return np.random.default_rng(5).normal(size=(rows, WIDTH)).astype(dtype)


def names(rows=NUM_ROWS):
    return [f"row-{number}" for number in range(rows)]


def mapped_files(address):
    """The files of which a byte lies at the address, by the kernel's own list."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            yield name


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_in_the_tables_order_the_matrix_is_the_file(tmp_path, dtype):
    written = matrix(dtype)
    write_embeddings(tmp_path / "data", names(), written)
    before = pa.total_allocated_bytes()
    found = embeddings_of(tmp_path / "data", names())
    assert found.dtype == dtype and found.tobytes() == written.tobytes()
    assert not found.flags.owndata and not found.flags.writeable and found.flags.c_contiguous
    (file,) = (tmp_path / "data").glob("*.arrow")
    assert list(mapped_files(found.ctypes.data)) == [str(file)]
    assert list(mapped_files(found[-1].ctypes.data)) == [str(file)]
    assert pa.total_allocated_bytes() - before < written.nbytes / 2, "the ids alone are read into memory"


def test_the_table_is_one_that_datasets_reads(tmp_path):
    write_embeddings(tmp_path / "data", names(), matrix(), {"input_hash": [f"{n:032x}" for n in range(NUM_ROWS)]})
    table = datasets.load_from_disk(str(tmp_path / "data"))
    assert table.features == datasets.Features(
        {
            "id": datasets.Value("string"),
            "input_hash": datasets.Value("string"),
            "embedding": datasets.List(datasets.Value("float32"), length=WIDTH),
        }
    )
    assert (len(table), table[NUM_ROWS - 1]["id"], table["input_hash"][17]) == (NUM_ROWS, "row-2499", f"{17:032x}")
    assert table[1200]["embedding"] == matrix()[1200].tolist()
    assert table.data.column("embedding").num_chunks == 1


def test_in_another_order_the_wanted_rows_are_copied(tmp_path):
    write_embeddings(tmp_path / "data", names(), matrix())
    wanted = [7, 2499, 0]
    found = embeddings_of(tmp_path / "data", [f"row-{number}" for number in wanted])
    np.testing.assert_array_equal(found, matrix()[wanted])


def test_a_table_that_datasets_wrote_in_several_batches(tmp_path):
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix().reshape(-1)), WIDTH)
    datasets.Dataset(pa.table({"id": names(), "embedding": column})).save_to_disk(str(tmp_path / "data"))
    np.testing.assert_array_equal(embeddings_of(tmp_path / "data", names()), matrix())


def test_the_matrix_is_written_from_its_own_memory(tmp_path):
    written = np.memmap(tmp_path / "matrix", np.float32, "w+", shape=(200_000, WIDTH))
    written[:] = 3.5
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    proxy = pa.proxy_memory_pool(pool)
    pa.set_memory_pool(proxy)
    try:
        write_embeddings(tmp_path / "data", names(200_000), written)
    finally:
        pa.set_memory_pool(pool)
    ids = sum(len(name) + 8 for name in names(200_000))
    assert before >= 0 and proxy.max_memory() < ids * 2 + written.nbytes / 10


def test_a_changed_number_changes_the_digest(tmp_path):
    digests = set()
    for number, values in enumerate([matrix(), matrix(), matrix() + np.eye(NUM_ROWS, WIDTH, -2000, dtype=np.float32)]):
        write_embeddings(tmp_path / str(number) / "data", names(), values)
        digests.add(content_digest(tmp_path / str(number)))
    assert len(digests) == 2


@settings(max_examples=25, deadline=None)
@given(
    values=st.sampled_from([np.float32, np.float16]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 5), st.integers(1, 4)))
    )
)
def test_any_numbers_come_back_bit_for_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("round") / "data"
    ids = [str(number) for number in range(len(values))]
    write_embeddings(folder, ids, values)
    assert embeddings_of(folder, ids).tobytes() == values.tobytes()

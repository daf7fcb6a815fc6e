"""Rows written one by one are read back as they were, in any order, whatever the size of a batch."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.inference import row_file
from deita_train.inference.row_file import IDS, IDS_TYPE, LABELS, RowFile, RowWriter, write_dataset

COLUMNS = {"row": pa.int64(), "reason": pa.string(), IDS: IDS_TYPE, LABELS: IDS_TYPE}
ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=9)


def written(path, rows):
    with RowWriter(path, COLUMNS) as writer:
        for number, ids in enumerate(rows):
            reason = None if ids else "empty"
            writer.append(row=10 * number, reason=reason, input_ids=ids, labels=[-100 for _ in ids])
    return RowFile(path)


@settings(deadline=None)
@given(ROWS, st.data())
def test_rows_are_read_back_at_any_place(tmp_path_factory, rows, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_file, "ROWS_PER_BATCH", 3)
        file = written(tmp_path_factory.mktemp("rows") / "rows.arrow", rows)
    assert len(file) == len(rows)
    assert file.lengths.tolist() == list(map(len, rows)) and file.lengths.dtype == np.int32
    assert [ids.tolist() for ids in file.each()] == rows
    assert [labels.tolist() for labels in file.each(LABELS)] == [[-100] * len(ids) for ids in rows]
    assert file.numbers("row").tolist() == [10 * number for number in range(len(rows))]
    assert file.column("reason").to_pylist() == [None if ids else "empty" for ids in rows]
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=4)) if rows else []
    assert [ids.tolist() for ids in file.rows(places)] == [rows[place] for place in places]


def test_a_row_is_a_view_of_the_mapped_file(tmp_path):
    before = pa.total_allocated_bytes()
    file = written(tmp_path / "rows.arrow", [[1, 2, 3]] * 5000)
    assert not file.tokens(4321).flags.owndata
    assert pa.total_allocated_bytes() - before < 1000


def test_a_writer_that_fails_leaves_no_complete_file(tmp_path):
    with pytest.raises(ZeroDivisionError), RowWriter(tmp_path / "rows.arrow", {"n": pa.int64()}) as writer:
        writer.append(n=1)
        raise ZeroDivisionError
    assert len(RowFile(tmp_path / "rows.arrow")) == 0


def test_a_dataset_is_written_row_by_row_and_an_empty_one_is_not(tmp_path):
    features = datasets.Features({"id": datasets.Value("string"), "ends": datasets.List(datasets.Value("int32"))})
    rows = [{"id": "a", "ends": [1, None]}, {"id": "b", "ends": []}]
    assert (
        write_dataset(iter(rows), features, tmp_path / "data")
        == 2
        == write_dataset(rows, features, tmp_path / "a" / "b")
    )
    found = datasets.load_from_disk(str(tmp_path / "data"))
    assert found.features == features and found.to_list() == rows
    assert write_dataset(iter([]), features, tmp_path / "none") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "data"]

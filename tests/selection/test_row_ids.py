import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.data.texts import TextColumn
from deita_train.selection.row_ids import order_of_ids

# Characters of one to four bytes of UTF-8, and some above those that UTF-16 writes as pairs.
TEXTS = st.text(st.sampled_from("aZ 0é€\uffff\U0001f600"), max_size=4)


@given(st.lists(TEXTS, unique=True), st.integers(1, 5))
def test_ids_are_ordered_as_python_orders_their_characters(ids, rows_per_chunk):
    expected = sorted(range(len(ids)), key=ids.__getitem__)
    chunks = [ids[start : start + rows_per_chunk] for start in range(0, len(ids), rows_per_chunk)]
    assert order_of_ids(ids).tolist() == expected
    assert order_of_ids(TextColumn(pa.chunked_array(chunks, pa.string()))).tolist() == expected
    assert order_of_ids(TextColumn(pa.array(ids, pa.string()))).dtype == np.int64


def test_ids_in_arrow_are_a_sequence_of_texts():
    ids = TextColumn(pa.chunked_array([["b", "a"], ["c"]]))
    assert list(ids) == ["b", "a", "c"] and len(ids) == 3 and ids[-1] == "c" and "a" in ids
    assert list(ids[1:]) == ["a", "c"]
    with pytest.raises(IndexError):
        ids[3]


@pytest.mark.parametrize("num_rows", [2, 65_536, 65_537, 65_538])
def test_a_repeated_id_is_found_wherever_the_rows_are_compared(num_rows):
    ids = [f"{number:06}" for number in range(num_rows)]
    ids[0] = ids[-1]
    with pytest.raises(AssertionError, match="not unique"):
        order_of_ids(ids)

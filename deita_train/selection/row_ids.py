"""The order of a pool's rows by id."""

from collections.abc import Sequence

import numpy as np

from deita_train.data.texts import are_unique, order_of_texts


def order_of_ids(ids: Sequence[str]) -> np.ndarray:
    """Positions `[N]` int64 of the rows sorted by id, in plain string order; asserts that no id is there twice."""
    order = order_of_texts(ids)
    assert are_unique(ids, order), "row ids are not unique"
    return order

"""Which preference pairs are trained on: those with the largest or the smallest margin between their two answers."""

from collections.abc import Sequence

import datasets
import numpy as np

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.data.texts import order_of_texts
from deita_train.errors import UserError

_NUMBERS = ("int", "uint", "float", "null")


def pair_margins(pairs: datasets.Dataset, by: str) -> np.ndarray:
    """How much better the chosen answer of each pair is by a reward of the data: `[N]` float64, nan for none.

    That is the number in the column `by`, or the difference of the numbers in `by_chosen` and `by_rejected`, or in
    `chosen_by` and `rejected_by`.

    Raises:
        UserError: the pairs have none of these columns, or they hold something else than numbers.
    """
    for names in ((by,), (f"{by}_chosen", f"{by}_rejected"), (f"chosen_{by}", f"rejected_{by}")):
        if all(name in pairs.column_names for name in names):
            chosen, *rejected = (_numbers(pairs, name) for name in names)
            return chosen - rejected[0] if rejected else chosen
    raise UserError(
        f"dpo.preferences.select.by: {by}: the pairs have neither a column {by!r} nor {by}_chosen and {by}_rejected, "
        f"or chosen_{by} and rejected_{by}; they have {', '.join(pairs.column_names)}. by: margin is the "
        "reference's own."
    )


def ranked_pairs(ids: Sequence[str], margins: np.ndarray, order: str) -> np.ndarray:
    """The places of the pairs that have a margin, in the order of the selection; ties by id.

    Args:
        ids: N unique ids.
        margins: `[N]` float64, nan for a pair without one.
        order: "largest" or "smallest".
    """
    sign = 1.0 if order == "smallest" else -1.0
    by_id = order_of_texts(ids)
    known = by_id[~np.isnan(margins[by_id])]
    return known[np.argsort(sign * margins[known], kind="stable")]


def _numbers(pairs: datasets.Dataset, name: str) -> np.ndarray:
    if not str(getattr(pairs.features[name], "dtype", "list")).startswith(_NUMBERS):
        raise UserError(
            f"dpo.preferences.select.by: column {name!r} of the pairs holds something else than a number in each row. "
            "Convert it, or name another."
        )
    found = numbers_in(arrow_column(pairs, name))
    return np.where(np.isfinite(found), found, np.nan)

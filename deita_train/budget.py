"""How much a selection keeps: a number of rows, a share of the pool, or a number of training tokens.

As plain data a budget is a whole number, ``{"share": 0.02}`` or ``{"tokens": 5000000}``: so recipes, keys, metrics and
reports hold it.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from deita_train.errors import UserError

Budget = int | Mapping[str, Any]
ROWS, SHARE, TOKENS = "rows", "share", "tokens"
_COUNT = r"[0-9]+(?:[_,][0-9]{3})*"
_TEXT = re.compile(rf"(?P<rows>{_COUNT})(?: *rows)?|(?P<share>[0-9]+(?:\.[0-9]+)?) *%|(?P<tokens>{_COUNT}) *tokens")


def is_mapping_budget(value: Any) -> bool:
    """Whether a value is a share or a number of tokens as plain data."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in (SHARE, TOKENS)


def form_of(budget: Budget) -> str:
    """``rows``, ``share`` or ``tokens``."""
    return str(next(iter(budget))) if isinstance(budget, Mapping) else ROWS


def amount_of(budget: Budget) -> float:
    """The one number of a budget: rows, a fraction of the pool, or tokens."""
    return next(iter(budget.values())) if isinstance(budget, Mapping) else budget


def budget_rows(budget: Budget, pool_rows: int) -> int | None:
    """How many rows of a pool of ``pool_rows`` the budget is; None for tokens.

    A share is rounded down, but to one row at least. It is taken of the decimal number as it is written: 0.29 of 100
    rows are 29, though the nearest binary number to 0.29 is a little less.
    """
    if form_of(budget) == TOKENS:
        return None
    if isinstance(budget, Mapping):
        return max(1, math.floor(Fraction(repr(budget[SHARE])) * pool_rows))
    return budget


def in_words(budget: Budget, *, separated: bool = True) -> str:
    """``6,000``, ``2%``, ``5,000,000 tokens``; thousands run together unless ``separated``."""
    form, amount = form_of(budget), amount_of(budget)
    if form == SHARE:
        return f"{100 * amount:.10g}%"
    return f"{amount:{',' if separated else ''}}{' tokens' if form == TOKENS else ''}"


def parse_budget(text: str) -> int | dict[str, Any]:
    """The budget that an option states: ``6000``, ``2%`` or ``5000000 tokens``.

    Raises:
        UserError: it is none of these, or 0, or more than 100%.
    """
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise UserError(
            f"--budget {text}: give a number of rows (6000), a share of the pool's rows (2%) or a number of training "
            "tokens ('5000000 tokens')."
        )
    form = next(name for name, value in found.groupdict().items() if value is not None)
    digits = found[form].replace(",", "").replace("_", "")
    amount: float = float(Fraction(digits) / 100) if form == SHARE else int(digits)
    if not amount > 0 or (form == SHARE and amount > 1):
        wanted = "more than 0% and at most 100%" if form == SHARE else "at least 1"
        raise UserError(f"--budget {text}: it must be {wanted}.")
    return int(amount) if form == ROWS else {form: amount}

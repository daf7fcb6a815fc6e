"""Whether a pool has the rows that a budget names, before anything runs."""

from collections.abc import Iterator

from deita_train.budget import ROWS, form_of
from deita_train.errors import UserError
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """A line for a budget of more rows than the pool has; nothing for the methods that are compared, which share it.

    Raises:
        UserError: the pool has less than half of them, with which the selection would fail.
    """
    budget = stage.identity["budget"]
    if stage.label != "select" or budget is None or form_of(budget) != ROWS:
        return
    rows = len(read_once(stage.parents["pool"])[0])
    if budget <= rows:
        return
    found = f"{stage.label}: the budget is {budget:,} rows, and the pool has only {rows:,} usable ones"
    if rows * 2 < budget and not stage.runtime["allow_fewer"]:
        raise UserError(f"{found}. Add rows to the pool, lower select.budget, or state select.allow_fewer: true.")
    yield f"{found}, so that fewer are selected"

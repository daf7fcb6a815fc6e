"""`deita-train validate`: reads every data source as the run will, and reports what it would keep and drop."""

from collections.abc import Iterator
from importlib import import_module

from deita_train.plan.plan import Plan
from deita_train.stages.kinds import STAGE_KINDS


def validate_data(plan: Plan) -> Iterator[str]:
    """One line per data source, then the reasons for drops with their first examples.

    Raises:
        UserError: something would stop the run: a malformed file, a row without a label, a duplicate id.
    """
    seen = set()
    for node in plan.nodes:
        module = STAGE_KINDS[node.kind].validation
        if module is not None:
            lines = tuple(import_module(module).validate(node))
            if lines not in seen:  # the cells of a sweep select by one column
                yield from lines
            seen.add(lines)

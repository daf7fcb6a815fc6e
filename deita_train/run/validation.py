"""`deita-train validate`: read every data source as the run will, and say what would be kept and dropped."""

from collections.abc import Iterator

from deita_train.run.graph import Node
from deita_train.run.plan import Plan


def validate_data(plan: Plan) -> Iterator[str]:
    """One line per data source, then the reasons of what would be dropped with their first examples.

    Raises :class:`UserError` for what would stop the run: a malformed file, a row without a label, an id twice.
    """
    for node in plan.nodes:
        if node.kind == "pool":
            yield from _pool(node)
        elif node.kind == "train_scorer":
            yield from _scorer_data(node)


def _pool(node: Node) -> Iterator[str]:
    from deita_train.data.pool import build_pool
    from deita_train.stages.pool import open_source

    sources = [
        open_source(identity, location)
        for identity, location in zip(node.config["sources"], node.settings["sources"], strict=True)
    ]
    _, report = build_pool(sources)
    yield f"{node.label}: {report.rows_in:,} rows read, {report.rows_out:,} usable"
    for reason, count in report.drops.items():
        yield f"  {reason}: {count:,}"
        for example in report.examples[reason]:
            yield f"    {example}"


def _scorer_data(node: Node) -> Iterator[str]:
    from deita_train.stages.train_scorer import read_scorer_data

    for which in ("data", "heldout"):
        if node.config[which] is not None:
            examples = read_scorer_data(node.config, node.settings, which)
            yield f"{node.label} {which}: {len(examples):,} labelled rows"

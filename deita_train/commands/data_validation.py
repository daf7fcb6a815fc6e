"""`deita-train validate`: reads every data source as the run will, and reports what it would keep and drop."""

from collections import Counter
from collections.abc import Iterator, Mapping

from deita_train.plan.node import Node
from deita_train.plan.plan import Plan


def validate_data(plan: Plan) -> Iterator[str]:
    """One line per data source, then the reasons for drops with their first examples.

    Raises:
        UserError: something would stop the run: a malformed file, a row without a label, a duplicate id.
    """
    for node in plan.nodes:
        if node.kind == "pool":
            yield from _pool(node)
        elif node.kind == "preferences":
            yield from _preferences(node)
        elif node.kind == "train_scorer":
            yield from _scorer_data(node)
        elif node.kind in ("scores_file", "embeddings_file"):
            yield _given_columns(node)
    yield from dict.fromkeys(line for node in plan.nodes if _reads_column(node) for line in _column(node))


def _pool(node: Node) -> Iterator[str]:
    from deita_train.stages.intake.pool import read_pool

    _, report = read_pool(node.config, node.settings)
    yield f"{node.label}: {report.rows_in:,} rows read, {report.rows_out:,} usable"
    yield from _drops(report.drops, report.examples)


def _preferences(node: Node) -> Iterator[str]:
    from deita_train.stages.intake.preferences import read_preferences

    _, report = read_preferences(node.config, node.settings)
    yield (
        f"{node.label}: {report.rows_in:,} rows read, {report.rows_out:,} pairs kept; "
        f"{report.mean_chosen_chars:,.0f} characters per chosen answer, {report.mean_rejected_chars:,.0f} per rejected "
        f"one; chosen is the longer one in {report.chosen_longer_share:.0%}"
    )
    yield from _drops(report.drops, report.examples)


def _drops(drops: Mapping[str, int], examples: Mapping[str, list[str]]) -> Iterator[str]:
    """The reasons with their examples. Rows left out of a sample have none: nothing is wrong with them."""
    for reason, count in drops.items():
        yield f"  {reason}: {count:,}"
        for example in examples.get(reason, ()):
            yield f"    {example}"


def _scorer_data(node: Node) -> Iterator[str]:
    from deita_train.stages.intake.scorer_data import read_scorer_data

    for which in ("data", "heldout"):
        if node.config[which] is not None:
            examples = read_scorer_data(node.config, node.settings, which)
            yield f"{node.label} {which}: {len(examples):,} labelled rows"


def _given_columns(node: Node) -> str:
    from deita_train.stages.intake.embeddings_file import read_given_embeddings
    from deita_train.stages.intake.pool import read_pool
    from deita_train.stages.intake.scores_file import read_given_scores

    pool, _ = read_pool(node.parents["pool"].config, node.parents["pool"].settings)
    file = node.settings["file"]
    if node.kind == "scores_file":
        unused = read_given_scores(file, node.config["dimension"], pool).num_unused
    else:
        unused = read_given_embeddings(file, pool).num_unused
    return f"{node.label}: all {len(pool):,} rows of the pool are in {file}, and {unused:,} others"


def _reads_column(node: Node) -> bool:
    """Whether the node selects by a column of the pool, not by one that a stage measures."""
    return node.kind == "select" and "column" in node.config and "perplexity" not in node.parents


def _column(node: Node) -> Iterator[str]:
    from deita_train.selection.candidates import Candidates
    from deita_train.selection.settings import SelectionSettings
    from deita_train.selection.unrankable import unrankable_by_column
    from deita_train.stages.intake.pool import read_pool

    pool, _ = read_pool(node.parents["pool"].config, node.parents["pool"].settings)
    candidates = Candidates(pool, SelectionSettings.of_stage(node.config))  # without scores, which are not made yet
    drops = Counter(filter(None, unrankable_by_column(candidates)))
    usable = len(pool) - drops.total()
    yield f"{node.label}: {usable:,} of {len(pool):,} rows can be ranked by column {node.config['column']!r}"
    yield from _drops(drops, {})

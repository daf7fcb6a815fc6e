"""What a plan costs, on the terminal: a table of stages, their sum, and sentences on what fits and what pays."""

from collections.abc import Iterator, Sequence

from deita_train.number_text import ABSENT, compact, count, flop, flop_unit, gpu_hours, plural, significant
from deita_train.plan.cost.break_even import BreakEven
from deita_train.plan.cost.costs import PlanCost
from deita_train.plan.cost.rows import COUNTED, UNKNOWN
from deita_train.plan.cost.stages import StageCost
from deita_train.plan.disk import in_bytes
from deita_train.plan.plan import Plan, PlannedStage

_GB = 1e9


def cost_table(plan: Plan, stages: Sequence[PlannedStage], cost: PlanCost) -> list[str]:
    """Lines of a table: the stages of the base run that compute, and the sum over everything that is to run."""
    shown = [stage for stage in stages if _has_cost(cost.stages[stage.node.key]) and not plan.cell_name(stage.node)]
    if not shown:
        return []
    largest = max((of.operations or 0.0 for of in cost.stages.values()), default=0.0)
    size, unit = flop_unit(largest / 100)
    with_hours = cost.gpu is not None
    titles = [
        "stage",
        "rows",
        "tokens",
        unit,
        *(["GPU hours"] if with_hours else []),
        "GB each" if with_hours else "GB",
    ]
    rows = [[stage.node.label, *_numbers(cost.stages[stage.node.key], size, with_hours)] for stage in shown]
    tokens = f"{_bound(cost)}{_amount(cost.tokens)}"
    total = [
        f"all {len(cost.waiting)} to run", "", tokens, _in_units(cost.operations, size),
        *([gpu_hours(cost.gpu_hours)] if with_hours else []), "",
    ]  # fmt: skip
    return _aligned([titles, *rows, total])


def cost_sentences(cost: PlanCost) -> Iterator[str]:
    """How to read the table, the sum in hours, what does not fit, and where selecting first pays."""
    shown = [of for of in cost.to_run if _has_cost(of)]
    marks = []
    if any(of.how not in (COUNTED, UNKNOWN) or of.sampled for of in shown):
        marks.append("~ from a table, or estimated from a sample")
    if any(of.at_most for of in shown):
        marks.append("< at most, as if every row reached the length at which it is cut")
    if marks:
        yield f"{'; '.join(marks)}."
    if shown:
        yield from total_sentences(cost)


def total_sentences(cost: PlanCost) -> Iterator[str]:
    """The sum in hours with where its speed is from, what does not fit, and where selecting first pays."""
    yield from _hours_sentences(cost)
    yield from fit_sentences(cost)
    if cost.point is not None:
        yield _point_sentence(cost.point)


def fit_sentences(cost: PlanCost) -> Iterator[str]:
    """The stages that do not fit into the GPU's memory, and what would."""
    if cost.gpu is None:
        return
    labels = cost.labels
    for key, of in cost.stages.items():
        if key in cost.waiting and of.fits is False and of.memory is not None:
            what = f"What would: {'; '.join(of.ways)}" if of.ways else "Nothing that is modelled would"
            yield (
                f"warning: {labels[key]} will not fit: {in_bytes(of.memory)} on each GPU, and {cost.gpu.title} has "
                f"{in_bytes(cost.gpu.memory)}. {what}."
            )


def _hours_sentences(cost: PlanCost) -> Iterator[str]:
    gpu, hours, wall = cost.gpu, cost.gpu_hours, cost.wall_hours
    if gpu is None:
        if any(of.gpus for of in cost.to_run):
            yield "`--gpu NAME` (such as h100, a100, 4090) says how many hours that takes, and whether it fits."
        return
    if hours is None or wall is None:
        return
    lacking = [
        cost.labels[key] for key, of in cost.stages.items() if key in cost.waiting and of.gpus and of.gpu_hours is None
    ]
    without = f", without {', '.join(dict.fromkeys(lacking))}" if lacking else ""
    yield f"{gpu_hours(hours)} hours of one {gpu.title}, {gpu_hours(wall)} hours one stage after another{without}."
    shares = {of.share.work: of.share for of in cost.to_run if of.share is not None and of.gpu_hours is not None}
    told = ", ".join(f"{share.value:.0%} for {share.work}" for share in shares.values())
    yield f"Its peak is {gpu.peak_flops / 1e12:g} TFLOP/s in bfloat16 ({gpu.source}). Of that: {told}."
    if any(share.on_cpu for share in shares.values()):
        yield (
            "These shares are of a matrix product on a CPU (docs/performance.md), as no GPU has been measured: a GPU "
            "will take longer. `--share 0.4` states your own."
        )


def _point_sentence(point: BreakEven) -> str:
    about = " (at most, all three)" if point.at_most else ""
    ways = (
        f"Selecting takes {flop(point.selecting)}, training on the selected rows "
        f"{flop(point.selected)}, the same training on the whole pool {flop(point.whole)}{about}"
    )
    epochs, parameters = point.break_even_epochs, point.break_even_parameters
    if epochs is None or parameters is None:
        return f"{ways}: selecting first saves nothing, however long the training."
    verdict = "selecting first is cheaper" if point.pays else "training on everything is cheaper"
    return (
        f"{ways}: {verdict}. Both cost the same at {significant(epochs, 2)} epochs in place of "
        f"{significant(point.epochs, 2)}, or for a model of {compact(parameters)} parameters in place of "
        f"{compact(point.parameters)}."
    )


def unresolved_sentences(plan: Plan, cost: PlanCost) -> Iterator[str]:
    """What only the network could tell, and what that leaves unknown."""
    if plan.unresolved:
        yield "Unresolved, because the Hub does not answer:"
        yield from (f"  {what}" for what in plan.unresolved)
        yield (
            "What reads them has no key yet and counts as not made. `run` needs the network, or revision: with a "
            "commit that the local cache holds."
        )
    if any(of.from_table for of in cost.stages.values()):
        yield "Shapes of models that are not here are from the package's table."
    unknown: dict[str, list[str]] = {}
    for key, of in cost.stages.items():
        if of.unknown:
            unknown.setdefault(of.unknown, []).append(cost.labels[key])
    for why, labels in unknown.items():
        yield f"Cost of {', '.join(dict.fromkeys(labels))}: unknown, because {why}."


def _bound(cost: PlanCost) -> str:
    """The mark of a sum: a bound if any part is one, else an estimate if any part is."""
    if any(of.at_most for of in cost.to_run):
        return "<"
    return "~" if any(of.sampled for of in cost.to_run) else ""


def _has_cost(cost: StageCost) -> bool:
    return cost.tokens is not None or cost.operations is not None or cost.memory is not None or bool(cost.unknown)


def _numbers(cost: StageCost, size: float, with_hours: bool) -> list[str]:
    rows = count(cost.rows)
    rows = f"~{rows}" if cost.rows is not None and cost.how not in (COUNTED, UNKNOWN) else rows
    mark = "" if cost.tokens is None else "<" if cost.at_most else "~" if cost.sampled else ""
    memory = ABSENT if cost.memory is None else significant(cost.memory / _GB)
    return [
        rows, f"{mark}{_amount(cost.tokens)}", _in_units(cost.operations, size),
        *([gpu_hours(cost.gpu_hours)] if with_hours else []), f"{memory}{'!' if cost.fits is False else ''}",
    ]  # fmt: skip


def _in_units(operations: float | None, size: float) -> str:
    return ABSENT if operations is None else significant(operations / size)


def _amount(number: float | None) -> str:
    return ABSENT if number is None else compact(number)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns by their longest text: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [f"{row[0]:{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def count_sentence(plan: Plan, cost: PlanCost) -> str:
    """How much is to run, for the head of a run."""
    waiting = plural(len(cost.waiting), "stage")
    unknown = sum(bool(of.unknown) and of.operations is None for of in cost.to_run)
    without = f" without {plural(unknown, 'stage')} of unknown cost" if unknown else ""
    operations = "" if cost.operations is None else f", {flop(cost.operations)}{without}"
    return f"{plan.loaded.recipe.name}: {waiting} to run{operations}."

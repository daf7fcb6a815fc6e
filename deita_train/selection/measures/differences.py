"""How the measures of compared methods differ from those of random rows and of the longest answers, over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deita_train.number_text import ABSENT, decimals
from deita_train.report.statistics import Difference, difference, estimate
from deita_train.selection.measures.compared import Comparison, Diversity, Measured
from deita_train.selection.settings import REFERENCES
from deita_train.table import Table, numbers, words


@dataclass(frozen=True)
class _Quantity:
    title: str
    places: int
    read: Callable[[Measured], float | None]


def _diverse(read: Callable[[Diversity], float | None]) -> Callable[[Measured], float | None]:
    return lambda item: None if item.diversity is None else read(item.diversity)


_QUANTITIES = (
    _Quantity("mean score", 3, lambda item: item.composition.mean_score),
    _Quantity("total tokens", 0, lambda item: item.composition.total_tokens),
    _Quantity("mean characters", 0, lambda item: item.composition.characters.mean),
    _Quantity("nearest similarity", 4, _diverse(lambda of: None if of.nearest is None else of.nearest.mean)),
    _Quantity("facility location", 4, _diverse(lambda of: of.facility_location)),
    _Quantity("Vendi score", 1, _diverse(lambda of: of.vendi_score)),
    _Quantity("NovelSum", 4, _diverse(lambda of: of.novel_sum)),
)


def _quantities(comparison: Comparison) -> tuple[_Quantity, ...]:
    """What is compared: the means of the pool's columns, then what every comparison measures."""
    return (*(_column_mean(name) for name in comparison.pool.columns), *_QUANTITIES)


def _column_mean(name: str) -> _Quantity:
    return _Quantity(f"mean {name}", 4, lambda item: item.composition.columns[name])


def seed_table(comparison: Comparison) -> Table | None:
    """Means over the seeds of each method that draws, with 95% intervals; None without seeds."""
    found = _values(comparison)
    rows = tuple(
        (method, str(len(comparison.seeds[method])), item.title, *_mean_cells(found[method][item.title], item))
        for method in comparison.seeds
        for item in _quantities(comparison)
        if found[method][item.title]
    )
    note = "The interval of the mean over seeds is Student's t. The other methods draw nothing."
    columns = (*words("selection"), *numbers("seeds"), *words("measure"), *numbers("mean", "95% interval"))
    return Table(columns, rows, "Means over seeds", note) if rows else None


def difference_table(comparison: Comparison) -> Table | None:
    """Each method less random rows and less the longest answers, and which intervals hold zero; None without seeds."""
    found = _values(comparison)
    there = [name for name in REFERENCES if name in found]
    pairs = [(method, against) for against in there for method in found if method not in (against, "random")]
    if not comparison.seeds or not pairs:
        return None
    gaps = {
        (*pair, item): gap
        for pair in pairs
        for item in _quantities(comparison)
        if (gap := _gap(*(found[method][item.title] for method in pair))) is not None
    }
    rows = tuple((method, against, item.title, *_gap_cells(gap, item)) for (method, against, item), gap in gaps.items())
    note = "The method less the other, with the 95% interval over seeds (Welch, or Student's t where one of them draws "
    note += f"nothing). {_verdict(gaps)}"
    columns = (*words("selection", "against", "measure"), *numbers("difference", "95% interval"))
    return Table(columns, rows, "Against random rows and the longest answers", note)


def _verdict(gaps: Mapping[tuple[str, str, _Quantity], Difference]) -> str:
    """Which intervals hold zero, and whether the spread of random rows is unknown, in sentences."""
    zero: dict[tuple[str, str], list[str]] = {}
    for (method, against, item), gap in gaps.items():
        if _has_spread(gap) and gap.includes_zero:
            zero.setdefault((method, against), []).append(item.title)
    named = "; ".join(f"{method} and {against} in {', '.join(titles)}" for (method, against), titles in zero.items())
    text = "No interval holds zero."
    if zero:
        text = f"The interval holds zero, so these seeds do not tell the two apart: {named}."
    if any(gap.interval is None and against == "random" for (_, against, _), gap in gaps.items()):
        text += " A single seed of random rows leaves their spread unknown: state several in compare.seeds."
    return text


def _has_spread(gap: Difference) -> bool:
    return gap.interval is not None and gap.interval[0] < gap.interval[1]


def _names(comparison: Comparison) -> Mapping[str, Sequence[str]]:
    """The selections of each method: several by seed, or one."""
    seeded = {name: method for method, names in comparison.seeds.items() for name in names}
    found: dict[str, list[str]] = {}
    for name in comparison.selections:
        found.setdefault(seeded.get(name, name), []).append(name)
    return found


def _values(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    """The values of each quantity by method; none where it was not measured."""
    quantities, values = _quantities(comparison), dict[str, dict[str, list[float]]]()
    for method, names in _names(comparison).items():
        read = {item.title: [item.read(comparison.selections[name]) for name in names] for item in quantities}
        values[method] = {title: [one for one in of if one is not None] for title, of in read.items()}
    return values


def _gap(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """`first` less `second`; a single value beside several is one without spread, because its method draws nothing."""
    if not first or not second:
        return None
    one, other = estimate(first), estimate(second)
    if (one.sd is None) == (other.sd is None):
        return difference(one, other)
    half_width = one.half_width if other.sd is None else other.half_width
    mean = one.mean - other.mean
    assert half_width is not None
    return Difference(mean, (mean - half_width, mean + half_width))


def _mean_cells(values: Sequence[float], item: _Quantity) -> tuple[str, str]:
    found = estimate(values)
    interval = " to ".join(decimals(end, item.places) for end in found.interval) if found.half_width else ABSENT
    return decimals(found.mean, item.places), interval


def _gap_cells(gap: Difference, item: _Quantity) -> tuple[str, str]:
    interval = ABSENT
    if gap.interval is not None and _has_spread(gap):
        interval = " to ".join(decimals(end, item.places) for end in gap.interval)
    return decimals(gap.mean, item.places), interval

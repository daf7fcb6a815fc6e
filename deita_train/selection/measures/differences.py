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


def seed_table(comparison: Comparison) -> Table | None:
    """Means over the seeds of each method with 95% intervals; None without seeds."""
    if not comparison.seeds:
        return None
    found = _values(comparison)
    rows = [
        (method, str(len(_names(comparison)[method])), *(_mean_text(of[item.title], item) for item in _QUANTITIES))
        for method, of in found.items()
    ]
    note = "Mean and half the 95% interval (Student's t) over seeds; a method that draws nothing has one selection."
    return _present("Means over seeds", ("selection", "selections"), rows, note)


def difference_table(comparison: Comparison) -> Table | None:
    """Each method less random rows and less the longest answers, and which intervals hold zero; None without seeds."""
    found = _values(comparison)
    there = [name for name in REFERENCES if name in found]
    pairs = [(method, against) for against in there for method in found if method not in (against, "random")]
    if not comparison.seeds or not pairs:
        return None
    rows, zero, unknown = [], list[str](), False
    for method, against in pairs:
        cells = []
        for item in _QUANTITIES:
            gap = _gap(found[method][item.title], found[against][item.title])
            cells.append(_gap_text(gap, item.places))
            if gap is not None and gap.interval is not None and gap.includes_zero and gap.interval[0] < gap.interval[1]:
                zero.append(f"{method} and {against} in {item.title}")
            unknown = unknown or (gap is not None and gap.interval is None and "random" in (method, against))
        rows.append((method, against, *cells))
    note = "The method less the other, with the 95% interval over seeds (Welch, or Student's t where one of them draws "
    note += f"nothing). {_verdict(zero)}"
    if unknown:
        note += " A single seed of random rows leaves their spread unknown: state several in compare.seeds."
    return _present("Against random rows and the longest answers", ("selection", "against"), rows, note)


def _verdict(zero: Sequence[str]) -> str:
    if not zero:
        return "No interval holds zero."
    return f"The interval holds zero, so these seeds do not tell the two apart: {'; '.join(zero)}."


def _names(comparison: Comparison) -> Mapping[str, Sequence[str]]:
    """The selections of each method: several by seed, or one."""
    seeded = {name: method for method, names in comparison.seeds.items() for name in names}
    found: dict[str, list[str]] = {}
    for name in comparison.selections:
        found.setdefault(seeded.get(name, name), []).append(name)
    return found


def _values(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    """The values of each quantity by method; none where it was not measured."""
    values: dict[str, dict[str, list[float]]] = {}
    for method, names in _names(comparison).items():
        read = {item.title: [item.read(comparison.selections[name]) for name in names] for item in _QUANTITIES}
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


def _mean_text(values: Sequence[float], item: _Quantity) -> str:
    if not values:
        return ABSENT
    found = estimate(values)
    spread = "" if not found.half_width else f" ± {decimals(found.half_width, item.places)}"
    return f"{decimals(found.mean, item.places)}{spread}"


def _gap_text(gap: Difference | None, places: int) -> str:
    if gap is None:
        return ABSENT
    text = decimals(gap.mean, places)
    if gap.interval is None or gap.interval[0] == gap.interval[1]:
        return text
    return f"{text} ({' to '.join(decimals(end, places) for end in gap.interval)})"


def _present(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> Table:
    """A table of the quantities that any row has."""
    first = len(names)
    there = [place for place, _ in enumerate(_QUANTITIES, first) if any(row[place] != ABSENT for row in rows)]
    columns = (*words(*names), *numbers(*(_QUANTITIES[place - first].title for place in there)))
    return Table(columns, tuple((*row[:first], *(row[place] for place in there)) for row in rows), title, note)

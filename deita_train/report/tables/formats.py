"""Numbers as text: counts, shares, durations, estimates."""

from __future__ import annotations

import math

from deita_train.report.results.groups import Estimate

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def count(value: float) -> str:
    """A whole number with thousands separated: ``12,345``."""
    return f"{value:,.0f}".replace("-", MINUS)


def compact(value: float) -> str:
    """A large whole number in words of a thousand: ``7.24 B``, ``1.5 M``, ``12.3 k``; below 10,000 in full."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{significant(value / (1e3 if letter == 'k' else size))} {letter}"
    return count(value)


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, without an exponent, at most 6 decimals."""
    return decimals(value, _num_decimals(value, digits))


def decimals(value: float, places: int) -> str:
    """``value`` with a fixed number of decimals, thousands separated, a true minus sign."""
    return f"{value:,.{places}f}".replace("-", MINUS)


def share(value: float) -> str:
    """A fraction of one as a percentage: ``12.5%``."""
    return f"{100 * value:.1f}%"


def estimated(value: Estimate | None, as_share: bool = False) -> str:
    """Mean and, where the seeds differ, half of the 95% interval: ``2.310 ± 0.042``."""
    if value is None:
        return ABSENT
    scale = 100 if as_share else 1
    mean, half_width = scale * value.mean, scale * (value.half_width or 0.0)
    unit = "%" if as_share else ""
    if half_width == 0:
        return f"{decimals(mean, 1) if as_share else significant(mean, 4)}{unit}"
    places = min(_num_decimals(half_width, 2), 1 if as_share else 4)
    return f"{decimals(mean, places)} ± {decimals(half_width, places)}{unit}"


def estimated_count(value: Estimate | None) -> str:
    """As ``estimated``, for a whole number: ``600``."""
    if value is None:
        return ABSENT
    return count(value.mean) + (f" ± {count(value.half_width)}" if value.half_width else "")


def duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def compared(value: float, reference: float) -> str:
    """``higher than``, ``lower than`` or ``equal to``."""
    if value == reference:
        return "equal to"
    return "higher than" if value > reference else "lower than"


def plural(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``, ``1,200 rows``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _num_decimals(value: float, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return 1
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(value)))))

"""Numbers as a reader sees them: thousands separated, a true minus sign, a dash for what is not there."""

import math

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_FLOP_UNITS = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def count(value: float | None) -> str:
    """A whole number: `12,345`."""
    return decimals(value, 0)


def decimals(value: float | None, places: int) -> str:
    """A number with a fixed number of decimals: `1,234.50`; a dash for None and nan, and no minus before a zero."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:z,.{places}f}".replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits, without an exponent, with at most 6 decimals."""
    return decimals(value, significant_places(value, digits))


def compact(value: float) -> str:
    """A large number in billions, millions or thousands: `7.24 B`, `1.5 M`, `12.3 k`; below 10,000 in full."""
    for least, unit, letter in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{significant(value / unit)} {letter}"
    return count(value)


def share(value: float | None) -> str:
    """A fraction of one as a percentage: `12.5%`."""
    return ABSENT if value is None else f"{decimals(100 * value, 1)}%"


def duration(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def flop_unit(operations: float) -> tuple[float, str]:
    """The unit in which floating-point operations are a number above one, and its size; GFLOP at least."""
    return next(((size, unit) for size, unit in _FLOP_UNITS if operations >= size), _FLOP_UNITS[-1])


def flop(operations: float) -> str:
    """Floating-point operations in their own unit: `1.84 PFLOP`."""
    size, unit = flop_unit(operations)
    return f"{significant(operations / size)} {unit}"


def gpu_hours(hours: float | None) -> str:
    """Hours of GPUs: `12.3`, `<0.01`; a dash for None."""
    if hours is None:
        return ABSENT
    return significant(hours) if hours >= 0.01 else "<0.01"


def plural(number: float, noun: str) -> str:
    """`1 seed`, `3 seeds`, `1,200 rows`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def significant_places(value: float, digits: int) -> int:
    """How many decimals, at most 6, show `digits` significant digits of a number."""
    if value == 0 or not math.isfinite(value):
        return 1
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(value)))))

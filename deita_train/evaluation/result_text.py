"""Figures of benchmarks as tables show them."""

from deita_train.evaluation.results import PairedDifference, Result, Unit
from deita_train.number_text import decimals, significant

_PLACES = {"share": 1, "percent": 2, "score": 2}


def result_text(result: Result) -> str:
    """A value with its interval: `61.2% (58.0 to 64.4)`, `6.84 (6.51 to 7.16)`."""
    return _with_interval(_number(result.value, result.unit), result.low, result.high, result.unit)


def difference_text(difference: PairedDifference, unit: Unit) -> str:
    """A difference with its sign and interval, of shares in percentage points: `+1.2 (0.3 to 2.1)`."""
    text = _bare(difference.mean, unit)
    signed = f"+{text}" if difference.mean > 0 else text
    return _with_interval(signed, difference.low, difference.high, unit)


def _with_interval(text: str, low: float | None, high: float | None, unit: Unit) -> str:
    if low is None or high is None:
        return text
    return f"{text} ({_bare(low, unit)} to {_bare(high, unit)})"


def _number(value: float, unit: Unit) -> str:
    return f"{_bare(value, unit)}%" if unit in ("share", "percent") else _bare(value, unit)


def _bare(value: float, unit: Unit) -> str:
    if unit == "number":
        return significant(value, 4)
    return decimals(100 * value if unit == "share" else value, _PLACES[unit])

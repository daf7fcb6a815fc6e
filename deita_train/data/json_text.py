"""Any JSON value as text in a column of datasets' type ``Json``, which datasets decodes when a row is read.

datasets decodes with pandas' parser. That one rounds fractions (it reads 0.7 as 0.7000000000000001) and refuses whole
numbers beyond 64 bits. So a fraction is spelled in a way that it and Python's own parser both read exactly, such as
0.700000, and a longer whole number is kept as its digits in quotes.
"""

import decimal
import json
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import pyarrow as pa

from deita_train.data.plain_values import as_json, is_unicode_text

JSON_TYPE = pa.json_()
JSON_LISTS_TYPE = pa.list_(JSON_TYPE)
SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The whole numbers that datasets reads in JSON."""

_FEATURE = datasets.Json()
_MOST_DECIMALS = 15  # that pandas' parser reads
_STEPS = (0, 1, -1, 2, -2, 3, -3, 4, -4)


class NotJson(Exception):
    """A value that has no JSON form; the text says why."""


class LoneSurrogate(NotJson):
    """A value with a lone surrogate, which is not Unicode text."""


def json_text(value: Any) -> str:
    """The JSON text of a value, in which datasets reads what Python's ``json`` reads.

    Dates, times and decimal numbers become text, numbers that are not finite become null.

    Raises:
        NotJson: it holds bytes, or is nested too deeply.
        LoneSurrogate: it holds one.
    """
    try:
        text = as_json(value)
        if not is_unicode_text(text):
            raise LoneSurrogate("a lone surrogate, which is not Unicode text")
        not_finite: list[str] = []
        exact = json.loads(text, parse_constant=not_finite.append)  # which gives None
        if not not_finite and _read(text) == exact:
            return text
        text = _spelled(exact)
        _read(text)
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise NotJson(str(error)) from error
    return text


def _read(text: str) -> Any:
    """What datasets reads; where it refuses a whole number, the exception, which equals nothing."""
    try:
        return _FEATURE.decode_example(text)
    except ValueError as error:
        if "Value is too" in str(error):
            return error
        raise


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_spelled(name)}: {_spelled(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    if isinstance(value, float):
        return _spelled_fraction(value)
    if type(value) is int and not SMALLEST <= value <= LARGEST:
        return f'"{value}"'
    return json.dumps(value, ensure_ascii=False)


def _spelled_fraction(value: float) -> str:
    """The first spelling that both parsers read exactly; the shortest for the few numbers below 1e-290 without one."""
    exact = (text for text in _spellings(value) if _read(text) == value == float(text))
    return next(exact, repr(value))


def _spellings(value: float) -> Iterator[str]:
    """Decimal spellings near enough to mean the same number, with zeros behind it or with an exponent."""
    shortest = repr(value)
    yield shortest
    if "e" not in shortest:
        decimals = len(shortest.partition(".")[2])
        yield from (shortest + "0" * zeros for zeros in range(1, _MOST_DECIMALS - decimals + 1))
    sign, figures, exponent = decimal.Decimal(value).as_tuple()
    assert isinstance(exponent, int), "a finite number has an exponent"
    minus, digits = "-" * sign, "".join(map(str, figures))
    for kept in (17, 18, 19):
        power = exponent + len(digits) - kept
        whole = round(int(digits) * decimal.Decimal(10) ** (kept - len(digits)))
        for step in _STEPS:
            near = str(whole + step)
            yield f"{minus}{near}e{power}"
            for point in range(max(1, kept - _MOST_DECIMALS), kept):
                yield f"{minus}{near[:point]}.{near[point:]}e{power + kept - point}"


def json_array(texts: Sequence[str | None]) -> pa.Array:
    """JSON texts as a column of Arrow's type."""
    return pa.array(texts, type=JSON_TYPE)


def json_lists(rows: Sequence[Sequence[str]]) -> pa.ListArray:
    """Lists of JSON texts as a column."""
    ends = [0]
    for row in rows:
        ends.append(ends[-1] + len(row))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), json_array([text for row in rows for text in row]))


def holds_json(feature: Any) -> bool:
    """Whether a column of datasets' type `feature` holds JSON text, alone or within lists and objects."""
    if isinstance(feature, dict):
        return any(map(holds_json, feature.values()))
    if isinstance(feature, datasets.List | datasets.LargeList):
        return holds_json(feature.feature)
    return isinstance(feature, datasets.Json)


def decoded(value: Any, feature: Any) -> Any:
    """A value of such a column as Arrow gives it, with its JSON texts read."""
    if value is None:
        return None
    if isinstance(feature, dict):
        return {name: decoded(item, feature[name]) for name, item in value.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [decoded(item, feature.feature) for item in value]
    return json.loads(value) if isinstance(feature, datasets.Json) else value

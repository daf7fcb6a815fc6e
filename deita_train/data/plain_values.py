"""Which values a table can hold as text or JSON."""

import datetime
import decimal
import json
import uuid
from typing import Any


def is_unicode_text(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8; a lone surrogate from a broken JSON escape cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: Any) -> str:
    """JSON text of a value, with dates, times and decimal numbers as text.

    Raises:
        TypeError: it holds something else that JSON cannot write, such as bytes.
        RecursionError: it is nested too deeply.
    """
    return json.dumps(value, ensure_ascii=False, default=_as_text)


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError(f"JSON cannot write {type(value).__name__}")

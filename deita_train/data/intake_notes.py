"""What an intake did with what its rows hold beside the conversation, in sentences for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from deita_train.number_text import plural


def intake_notes(report: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each thing that a reader would not expect, none for plain rows.

    Args:
        report: the fields of an ``IntakeReport``; one of an older version may lack some.
    """
    if left_out := report.get("columns_left_out"):
        yield f"Columns of the source that were left out: {', '.join(left_out)}."
    for name, reason in report.get("json_columns", {}).items():
        yield f"Column '{name}' is kept as JSON: {reason}."
    for name, number in report.get("columns_kept_aside", {}).items():
        yield (
            f"Column '{name}' stays a column in {plural(number, 'row')}: the conversation has a system message of its "
            "own, or the column does not hold text."
        )
    for name, number in report.get("message_fields", {}).items():
        yield (
            f"{plural(number, 'message')} with a field '{name}', which is kept, and which only a chat template of your "
            "own may read."
        )
    if number := report.get("system_messages_left_out", 0):
        yield f"{plural(number, 'system message')} without text, left out of the conversation."

"""The error of a stage that is left without a single row: which reasons took them, and what to do about each."""

from collections.abc import Iterable, Mapping, Sequence

from deita_train.data.row_refusal import REFUSALS, WRITABLE_AS_TEXT
from deita_train.errors import UserError

_LONGER = "raise max_length as far as the model's context allows"
_WAYS: Mapping[str, tuple[str, ...]] = {
    "no_answer_within_max_length": (_LONGER,),
    "equal_answers_within_max_length": (_LONGER,),
    "prompt_longer_than_max_length": (_LONGER,),
    "response_beyond_max_length": (_LONGER,),
    "instruction_beyond_max_length": (_LONGER,),
    "prompt_longer_than_context": ("leave parity: out, so that long prompts are shortened",),
    "no_answer": ("check the rows' answers",),
    "no_response": ("check the rows' answers",),
    "equal_answers": ("give pairs whose answers differ",),
    "without_token": (_LONGER, "check the rows' answers"),
}


def no_row_left(what: str, reasons: Mapping[str, int], first: Sequence[str] = (), unit: str = "rows") -> UserError:
    """The error.

    Args:
        what: what no row is or has, such as "has a token to learn from".
        reasons: the number of rows by reason; all of them.
        first: the ids of the first few.
        unit: what is counted.
    """
    found = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items() if count)
    named = f"; the first are {', '.join(first)}" if first else ""
    ways = ", or ".join(_ways_on([reason for reason, count in reasons.items() if count])) or "check the data"
    total = sum(reasons.values())
    return UserError(
        f"none of {total:,} {unit} {what}{f' ({found})' if found else ''}{named}. {ways[:1].upper()}{ways[1:]}."
    )


def _ways_on(reasons: Sequence[str]) -> Iterable[str]:
    """What to do about these reasons, each once."""
    ways = dict.fromkeys(way for reason in reasons for way in _WAYS.get(reason, ()))
    if any(reason in REFUSALS for reason in reasons):
        ways["choose another chat_template"] = None
    if any(reason in WRITABLE_AS_TEXT for reason in reasons):
        ways["state unsupported_fields: text, which writes them as text"] = None
    return ways

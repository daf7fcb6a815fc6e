"""Why an evolved text is not used. The paper drops failed evolutions too (2.3, 2.4); here each has its reason."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from deita_train.evolve.wording import word_runs, words
from deita_train.llm.answers import Answer, Failure

OK = "ok"
EMPTY, CUT_OFF, FILTERED = "empty", "cut_off", "filtered"
REFUSAL, COPY, REPEATS_AN_EARLIER_VERSION = "refusal", "copy", "repeats_an_earlier_version"
TOO_LONG, REPEATS_THE_PROMPT = "too_long", "repeats_the_prompt"
# Before the reason of a call without an answer: failed_deadline, failed_no_content.
FAILED = "failed_"

LONGEST_REFUSAL_CHARS = 400
"""A longer text that begins like a refusal goes on to help, or tells of one."""

SHARED_WORDS = 8
"""An answer that has so many words of the prompt in a row is taken for a copy of the prompt."""

_REFUSALS_FILE = Path(__file__).parent / "refusals.txt"


def reason_of_call(answer: Answer | Failure) -> str | None:
    """Why a call has no whole answer; None if it has one."""
    if isinstance(answer, Failure):
        return f"{FAILED}{answer.reason}"
    return {"length": CUT_OFF, "content_filter": FILTERED}.get(answer.finish_reason or "")


def is_final(reason: str) -> bool:
    """Whether an answer that is unusable for this reason is not worth asking for again.

    A call that failed was made as often as seemed wise, and a text that was held back would be held back again.
    """
    return reason == FILTERED or reason.startswith(FAILED)


def reason_of_text(
    text: str,
    *,
    said: str,
    before: str,
    earlier: Sequence[str],
    max_chars: int,
    prompt_words: list[str],
    given: str,
) -> str:
    """Why an evolved text is eliminated, or "ok".

    Args:
        text: as evolved, without white space around it.
        said: the whole answer. A model that gives back its prompt gives back the marks for the text too, and between
            those is no text of its own.
        before: the text that it was evolved from.
        earlier: the other texts of its chain.
        max_chars: of an evolved text.
        prompt_words: the prompt's own.
        given: all texts that were put into the prompt; what they share with it is not the prompt's.
    """
    of_text = words(text)
    if not of_text:
        return EMPTY
    if len(text) > max_chars:
        return TOO_LONG
    if is_refusal(text):
        return REFUSAL
    if of_text == words(before):
        return COPY
    if any(of_text == words(other) for other in earlier):
        return REPEATS_AN_EARLIER_VERSION
    own = word_runs(prompt_words, SHARED_WORDS) - word_runs(words(given), SHARED_WORDS)
    return REPEATS_THE_PROMPT if own & word_runs(words(said), SHARED_WORDS) else OK


def is_refusal(text: str) -> bool:
    """Whether a short text begins as models begin that will not do what they are asked."""
    if len(text) > LONGEST_REFUSAL_CHARS:
        return False
    beginning = words(text)
    return any(beginning[: len(opening)] == opening for opening in _refusals())


@cache
def _refusals() -> list[list[str]]:
    lines = _REFUSALS_FILE.read_text(encoding="utf-8").splitlines()
    return [words(line) for line in lines if line and not line.startswith("#")]

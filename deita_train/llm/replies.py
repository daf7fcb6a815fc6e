"""What a server sent, read with care: real ones send HTML, nothing, and errors with status 200."""

import email.utils
import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.llm.answers import Answer, Failure

_SHOWN_CHARACTERS = 200
_SHOWN_BYTES = 1000
_FIRST_PAUSE_SECONDS = 0.5
_GROWTH = 3.0
_LONGEST_PAUSE_SECONDS = 60.0
# Ends of an answer after which the same question would end in the same way.
_FINAL_ENDS = frozenset({"length", "content_filter"})


@dataclass(frozen=True)
class Trouble:
    """A call without a usable answer.

    Attributes:
        failure: what is told if no further call helps.
        again: whether a further call may help.
        wait_seconds: how long the server asks to wait; None if it does not say.
        told_tokens: of prompt and answer, as far as the server told them, for a call that counts (and costs) although
            its answer cannot be used; None for one that does not.
    """

    failure: Failure
    again: bool = True
    wait_seconds: float | None = None
    told_tokens: tuple[int | None, int | None] | None = None


def read_reply(content: bytes) -> Answer | Trouble:
    """The answer in the body of a reply with status 200, or what is wrong with it."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return _malformed("the body is no JSON" if content.strip() else "the body is empty", content)
    if not isinstance(body, dict):
        return _malformed("the body is no JSON object", content)
    if body.get("error") and not body.get("choices"):
        return Trouble(Failure("server_error", shown(f"status 200 with an error: {_error_text(body)}")))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return Trouble(Failure("no_choices", "the reply has no choices"))
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        return _malformed("the first choice has no message", content)
    finish_reason = choices[0].get("finish_reason")
    end = finish_reason if isinstance(finish_reason, str) else None
    text = _text(message.get("content"))
    if not text.strip():
        return _without_content(message, end, _tokens(body))
    return Answer(text, end, *_tokens(body), _first_token(choices[0]))


def _malformed(what: str, content: bytes) -> Trouble:
    return Trouble(Failure("malformed", shown(f"{what}: {content[:_SHOWN_BYTES].decode(errors='replace')}")))


def _without_content(message: Mapping[str, Any], end: str | None, tokens: tuple[int | None, int | None]) -> Trouble:
    if isinstance(message.get("refusal"), str):
        failure = Failure("refused", shown(f"the server says: {message['refusal']}"))
        return Trouble(failure, again=False, told_tokens=tokens)
    detail = "the answer is empty"
    if end == "length":
        detail += " at max_tokens: a model that reasons first needs more of them"
    elif end is not None:
        detail += f" (finish_reason {end})"
    failure = Failure("no_content", shown(detail))
    return Trouble(failure, again=end not in _FINAL_ENDS, told_tokens=tokens)


def _text(content: Any) -> str:
    """The text of a message, which may come in parts; a lone surrogate, which no file could hold, is replaced."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if isinstance(part, dict) and _is_text(part.get("text")))
    if not _is_text(content):
        return ""
    return str(content).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _tokens(body: Mapping[str, Any]) -> tuple[int | None, int | None]:
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return None, None
    told = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    prompt, completion = (value if type(value) is int and value >= 0 else None for value in told)
    return prompt, completion


def _first_token(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """The log-probabilities of the likeliest first tokens; None unless the server tells them in the protocol's form."""
    try:
        found = {str(one["token"]): float(one["logprob"]) for one in choice["logprobs"]["content"][0]["top_logprobs"]}
    except (LookupError, TypeError, ValueError):
        return None
    # JSON of Python may hold NaN and infinities; a line of the store may not.
    return {token: value for token, value in found.items() if math.isfinite(value)} or None


def _error_text(body: Mapping[str, Any]) -> str:
    error = body["error"]
    return str(error.get("message") or error) if isinstance(error, Mapping) else str(error)


def shown(text: str) -> str:
    """A server's words on one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."


def wait_asked_for(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds that a reply's Retry-After asks to wait, given as seconds or as a date; None without one.

    A date is compared with the server's own (`Date`), because two clocks can differ.
    """
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return max(0.0, exact / 1000)
    stated = headers.get("retry-after")
    seconds = _number(stated)
    if seconds is not None:
        return max(0.0, seconds)
    until, sent = _date(stated), _date(headers.get("date"))
    if until is None:
        return None
    return max(0.0, until - (sent if sent is not None else time.time() if now is None else now))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value < float("inf") else None  # not nan either


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def pause_before(attempt: int, key: str) -> float:
    """The seconds to wait before call number `attempt` (2, 3...): half a second, then three times as long each time.

    At most a minute, and up to a quarter more or less. That part is drawn from the request's key, so that requests
    which failed together do not come back together and a repetition waits the same.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{key} {attempt}".encode()).digest()[:8], "big") / 2**64
    seconds = min(_FIRST_PAUSE_SECONDS * _GROWTH ** (attempt - 2), _LONGEST_PAUSE_SECONDS)
    return seconds * (0.75 + drawn / 2)

"""What comes back from a chat model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a model said; the numbers of tokens are None if the server does not tell them."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: a name for the reason (`deadline`, `server_error`, `malformed`...) and what was seen."""

    reason: str
    detail: str

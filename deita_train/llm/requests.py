"""What is asked of a chat model, and what comes back."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ChatRequest:
    """One request to a chat model.

    Attributes:
        messages: of the conversation, each with `role` and `content`.
        temperature: of sampling; 0 takes the most probable token.
        max_tokens: of the answer.
        json_object: whether the server is asked for a JSON object, which some ignore.
        attempt: how often the same was asked before on purpose, after an unusable answer.
    """

    messages: tuple[Mapping[str, str], ...]
    temperature: float = 0.0
    max_tokens: int = 1024
    json_object: bool = False
    attempt: int = 0

    def key(self, model: str) -> str:
        """SHA-256 over the model's name and all fields."""
        text = json.dumps({"model": model, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        text: the answer.
        finish_reason: why it ended; "length" where it was cut off.
        prompt_tokens: of the request, if the server says.
        completion_tokens: of the answer, if the server says.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Failure:
    """A request without an answer.

    Attributes:
        reason: in one word, such as "no_content", "deadline", "server_error", "malformed".
        detail: for a person.
    """

    reason: str
    detail: str

"""A question to a chat model, and the key under which its answer is kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class ChatRequest:
    """One question to a chat model.

    Attributes:
        messages: objects with `role` and `content`.
        temperature: 0 takes the likeliest token each time.
        max_tokens: the most that the answer may have.
        json_object: whether the server is asked to answer with a JSON object; some ignore it.
        attempt: how often the same was asked before on purpose, because an answer could not be used.
        top_logprobs: how many alternatives to the answer's first token are asked for, with their log-probabilities;
            None for none.
    """

    messages: tuple[Mapping[str, str], ...]
    temperature: float = 0.0
    max_tokens: int = 1024
    json_object: bool = False
    attempt: int = 0
    top_logprobs: int | None = None

    def key(self, model: str) -> str:
        """SHA-256 (64 hex digits) over the model's name and all fields."""
        # Not the store's canonical_json: a lone surrogate in a message must have a key, too.
        text = json.dumps({"model": model, **self.as_dict()}, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; what most requests do not ask for is left out, so that their keys stay."""
        wanted = {} if self.top_logprobs is None else {"top_logprobs": self.top_logprobs}
        return {
            "messages": [dict(message) for message in self.messages],
            "temperature": float(self.temperature),
            "max_tokens": self.max_tokens,
            "json_object": self.json_object,
            "attempt": self.attempt,
            **wanted,
        }

    @property
    def prompt_tokens(self) -> int:
        """An estimate: a token for four characters, rounded up."""
        return estimated_tokens(*(message["content"] for message in self.messages))


def estimated_tokens(*texts: str) -> int:
    """The tokens of texts without a tokenizer: one for four characters, rounded up."""
    return -(-sum(map(len, texts)) // _CHARACTERS_PER_TOKEN)

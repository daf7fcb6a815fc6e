"""What a chat model is asked through: a server that speaks OpenAI's protocol, or a model's folder."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from deita_train.errors import UserError
from deita_train.llm.addresses import address_problem

# What a server without keys is sent: the client insists on one, and would else take one from the environment.
NO_KEY = "none"
# Shorter values, such as EMPTY for a server of one's own, are no secrets, and words that an answer may contain.
_SECRET_LENGTH = 16
_ONLY_FOR_SERVERS = (
    "base_url", "api_key_env", "requests_per_minute", "tokens_per_minute", "price", "max_cost", "max_tokens_total"
)  # fmt: skip
_POSITIVE = (
    "max_in_flight", "max_attempts", "requests_per_minute", "tokens_per_minute", "deadline_s", "max_cost",
    "max_tokens_total",
)  # fmt: skip


@dataclass(frozen=True)
class Price:
    """What a million tokens cost, in the currency of the bill."""

    input: float
    output: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True)
class Endpoint:
    """A chat model as a recipe names it.

    Attributes:
        name: of the entry in the recipe's `llm:`, for messages.
        model: what the server calls the model, or, for a local one, what decides its answers (its hash or commit). It
            is part of every request's key; the server's address is not.
        base_url: of a server that speaks the OpenAI protocol.
        api_key_env: the name of the environment variable with the key. The key itself is in no field.
        local: a model's folder, which answers by batched generation here.
        builtin: the name of rules of this package that answer in place of a model.
        max_in_flight: how many requests wait for their answers at once; of a local model, the rows of a batch.
        requests_per_minute: at most this many calls in any 60 seconds, repetitions included.
        tokens_per_minute: at most this many tokens in any 60 seconds; a prompt counts a token for four characters and
            an answer `max_tokens` until the server has said how many they were.
        price: with it, spending is told as money.
        max_cost: no call is made that could bring the cost of the answers above it.
        max_tokens_total: the same in tokens, of prompts and answers together.
        deadline_s: seconds for one call, from sending it to the last byte of its answer. Pauses do not count.
        max_attempts: calls for one request in all, if none is answered.
    """

    name: str
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    local: Path | None = None
    builtin: str | None = None
    max_in_flight: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    price: Price | None = None
    max_cost: float | None = None
    max_tokens_total: int | None = None
    deadline_s: float = 600.0
    max_attempts: int = 6

    def __post_init__(self) -> None:
        if [self.base_url, self.local, self.builtin].count(None) != 2:
            raise UserError(
                f"{self.label}: state one of base_url (a server that speaks the OpenAI protocol, such as "
                "http://localhost:8000/v1 or https://api.openai.com/v1), local (a model's folder) and builtin (rules "
                "of this package)."
            )
        if self.base_url is None:
            self._refuse_fields_of_servers()
        self._check_url()
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{self.label}.{name} is {value}; it must be above 0.")
        if self.max_cost is not None and self.price is None:
            raise UserError(f"{self.label}.max_cost needs {self.label}.price: {{input: ..., output: ...}}.")

    @property
    def label(self) -> str:
        """The endpoint in messages: its place in the recipe."""
        return f"llm.{self.name}"

    def _refuse_fields_of_servers(self) -> None:
        stated = [field.name for field in fields(self) if field.name in _ONLY_FOR_SERVERS and getattr(self, field.name)]
        if stated:
            raise UserError(
                f"{self.label}: {', '.join(stated)} would do nothing for a local model, which asks no server; remove "
                f"them, or state base_url instead of {'local' if self.builtin is None else 'builtin'}."
            )

    def _check_url(self) -> None:
        if self.base_url is None:
            return
        problem = address_problem(self.base_url)
        if problem is not None:
            raise UserError(f"{self.label}.base_url {problem}")


class Secret:
    """A key that can be used and not seen: it has no text, and takes itself out of texts."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the client alone."""
        return self._value

    def removed_from(self, text: str) -> str:
        """A message without the key; wherever a server repeats it."""
        return text if self._value == NO_KEY else text.replace(self._value, "[key]")

    def removed_from_answer(self, text: str) -> str:
        """An answer without the key, unless the key is a word (`EMPTY`), which is no secret."""
        return self.removed_from(text) if len(self._value) >= _SECRET_LENGTH else text

    def removed_from_bytes(self, content: bytes) -> bytes:
        """The same of a whole reply, before any part of it is cut out."""
        return content.replace(self._value.encode(), b"[key]") if len(self._value) >= _SECRET_LENGTH else content

    def __repr__(self) -> str:
        return "Secret()"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key is not written anywhere")


def read_key(endpoint: Endpoint) -> Secret:
    """The key from the environment variable that the endpoint names; for one without keys, a word instead.

    Raises:
        UserError: the variable is not set, or holds what cannot be a key.
    """
    if endpoint.api_key_env is None:
        return Secret(NO_KEY)
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise UserError(
            f"{endpoint.label}: the environment variable {endpoint.api_key_env} is not set; it should hold the key. "
            f"Set it (export {endpoint.api_key_env}=...) where the run starts, then run again."
        )
    if not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"{endpoint.label}: the environment variable {endpoint.api_key_env} holds a space, a line break or another "
            "character that no key has. Set it again."
        )
    return Secret(key)

"""Single calls of a server through the openai client, without repetitions: an answer, or what went wrong."""

import asyncio
import contextlib
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deita_train.errors import UserError
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.endpoint import Endpoint, Secret, read_key
from deita_train.llm.replies import Trouble, read_reply, shown, wait_asked_for
from deita_train.llm.requests import ChatRequest

# Importing openai takes two seconds.
if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2
    import openai

# Reasons of failures that a further call may not be counted for.
UNREACHABLE, RATE_LIMIT, ADAPTED = "unreachable", "rate_limit", "adapted"

_CONNECT_SECONDS = 30.0
_TOO_MANY_REQUESTS = 429
_SERVERS_OWN = 500
# Request timeout, conflict, too early: the server asks for the same again.
_TRANSIENT = frozenset({408, 409, 425, _TOO_MANY_REQUESTS})
_ADVICE = {
    400: "the server does not take the request; check the model and what the server supports",
    401: "the key is wrong or missing; check the environment variable that api_key_env names",
    402: "the account has no credit; add some",
    403: "the key may not use this model; check its rights",
    404: "the server has no such model or address; check model: and base_url: (which often ends in /v1)",
    422: "the server does not take the request; check the model and what the server supports",
}
_NO_CREDIT = "insufficient_quota"
# How servers tell that one prompt is too long: OpenAI's code, and the words of vLLM and others.
_TOO_LONG = ("context_length_exceeded", "maximum context length", "context length", "context window")
_FILTERED = "content_filter"


class NoLogprobs(UserError):
    """The endpoint does not tell the probabilities of tokens."""


class Caller:
    """A client of one endpoint, open as long as its context."""

    def __init__(
        self, endpoint: Endpoint, log: "Callable[[str], None]", transport: "httpx2.AsyncBaseTransport | None" = None
    ) -> None:
        self._endpoint = endpoint
        self._log = log
        self._secret = read_key(endpoint)
        self._client = _client(endpoint, self._secret, transport)
        self._length_field = "max_tokens"
        self._takes_format = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def call(self, request: ChatRequest) -> Answer | Trouble:
        """Ask once.

        Raises:
            UserError: the server refuses in a way that no repetition changes.
        """
        import openai

        fields = self._fields(request)
        try:
            async with asyncio.timeout(self._endpoint.deadline_s):
                content = await self._send(fields)
        except openai.APIConnectionError as error:
            return self._unanswered(error)
        except TimeoutError:
            return Trouble(Failure("deadline", f"no answer within {self._endpoint.deadline_s:g} s"))
        except openai.APIStatusError as error:
            status, code = error.response.status_code, str(error.code or "")
            text = self._secret.removed_from(_words(error))
            wait = wait_asked_for(error.response.headers)
        else:
            return self._without_key(read_reply(self._secret.removed_from_bytes(content)))
        # Outside the handlers, so that no message carries the client's error, which holds the request.
        return self._refused(fields, status, text, code, wait)

    def _fields(self, request: ChatRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [dict(message) for message in request.messages],
            "temperature": request.temperature,
            self._length_field: request.max_tokens,
        }
        if request.json_object and self._takes_format:
            fields["response_format"] = {"type": "json_object"}
        if request.top_logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return fields

    async def _send(self, fields: dict[str, Any]) -> bytes:
        reply = await self._client.chat.completions.with_raw_response.create(**fields)
        return reply.http_response.content

    def _unanswered(self, error: "openai.APIConnectionError") -> Trouble:
        """A call whose connection failed, before or after it was made."""
        import httpx2

        cause = error.__cause__
        name = type(cause or error).__name__
        said = shown(self._secret.removed_from(f"{name}: {cause}" if str(cause or "") else name))
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Trouble(Failure(UNREACHABLE, said))
        if isinstance(cause, httpx2.TimeoutException):
            return Trouble(Failure("deadline", said))
        return Trouble(Failure("connection_lost", said))

    def _without_key(self, reply: Answer | Trouble) -> Answer | Trouble:
        if isinstance(reply, Answer):
            return replace(reply, text=self._secret.removed_from_answer(reply.text))
        failure = Failure(reply.failure.reason, self._secret.removed_from(reply.failure.detail))
        return replace(reply, failure=failure)

    def _refused(self, sent: dict[str, Any], status: int, text: str, code: str, wait: float | None) -> Trouble:
        """What an error status means.

        Raises:
            UserError: that no repetition changes it.
        """
        said = shown(f"status {status}: {text}" if text else f"status {status}")
        if status == _TOO_MANY_REQUESTS and code != _NO_CREDIT:
            return Trouble(Failure(RATE_LIMIT, said), wait_seconds=wait)
        if status >= _SERVERS_OWN or status in _TRANSIENT - {_TOO_MANY_REQUESTS}:
            return Trouble(Failure("server_error", said), wait_seconds=wait)
        if status in (400, 413, 422):
            adapted = self._adapted(sent, text) or _of_this_request(status, text, code, said)
            if adapted is not None:
                return adapted
            if "logprobs" in sent and "logprobs" in text:
                raise NoLogprobs(f"{self._endpoint.label}: the server gives no probabilities of tokens ({said}).")
        if code == _NO_CREDIT:
            status = 402
        # Of a refused key the server's words show parts.
        words = "" if status in (401, 403) or not text else f" ({shown(text)})"
        raise UserError(
            f"{self._endpoint.label}: the server refused with status {status}{words} for the model "
            f"{self._endpoint.model}; {_ADVICE.get(status, 'it will not change its mind')}. Then run again; what is "
            "answered is kept."
        )

    def _adapted(self, sent: dict[str, Any], text: str) -> Trouble | None:
        """Go without a field that this server does not take; None if it complains about something else."""
        if "response_format" in text and "response_format" in sent:
            if self._takes_format:
                self._adapt("response_format", "the answer's form is left to the prompt")
            self._takes_format = False
        elif "max_completion_tokens" in text and "max_tokens" in sent:
            if self._length_field == "max_tokens":
                self._adapt("max_tokens", "max_completion_tokens is sent instead")
            self._length_field = "max_completion_tokens"
        else:
            return None
        return Trouble(Failure(ADAPTED, shown(text)))

    def _adapt(self, field: str, instead: str) -> None:
        self._log(f"{self._endpoint.label}: the server does not take {field}; {instead}")


def _of_this_request(status: int, text: str, code: str, said: str) -> Trouble | None:
    """A refusal that lies in the text of one request, not in how the server is asked; None for others."""
    lower = f"{code} {text}".lower()
    if status == 413 or any(words in lower for words in _TOO_LONG):
        return Trouble(Failure("prompt_too_long", said), again=False)
    if code == _FILTERED:
        return Trouble(Failure("refused", said), again=False)
    return None


def _client(endpoint: Endpoint, secret: Secret, transport: "httpx2.AsyncBaseTransport | None") -> "openai.AsyncOpenAI":
    try:
        import httpx2
        import openai
    except ImportError as error:
        raise UserError(
            f"{endpoint.label} asks a server, which needs the openai client: pip install 'deita-train[llm]'."
        ) from error
    http_client = None if transport is None else openai.DefaultAsyncHttpxClient(transport=transport)
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=secret.reveal(),
        timeout=httpx2.Timeout(endpoint.deadline_s, connect=min(endpoint.deadline_s, _CONNECT_SECONDS)),
        max_retries=0,
        http_client=http_client,
    )


def _words(error: "openai.APIStatusError") -> str:
    """The server's own message, or the beginning of its body."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    if body is None:
        with contextlib.suppress(Exception):
            body = error.response.text
    return str(body or "")

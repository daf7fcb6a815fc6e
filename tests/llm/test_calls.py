"""Single calls, with a transport in place of the network."""

import asyncio
import builtins
import json
from dataclasses import replace

import httpx2
import pytest

from deita_train.errors import UserError
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.calls import Caller, NoLogprobs
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.replies import Trouble
from deita_train.llm.requests import ChatRequest
from llm.fake_server import completion

REQUEST = ChatRequest(({"role": "user", "content": "Really?"},), temperature=0.25, max_tokens=9)
YES = Answer("Yes.", "stop", 11, 7)


def call(handler, requests=(REQUEST,), log=print, **fields):
    """The outcomes of calls, one after another."""

    async def ask():
        endpoint = Endpoint("judge", "the-model", base_url="http://server/v1", **fields)
        async with Caller(endpoint, log, httpx2.MockTransport(handler)) as caller:
            return [await caller.call(request) for request in requests]

    return asyncio.run(ask())


def replying(status, body=None, text=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx2.Response(status, json=body, text=text, headers=named)


def refusal(message, code=None, **more):
    return {"error": {"message": message, "code": code, **more}}


def test_what_is_sent(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-1234567890123456")
    seen = []

    def answer(request):
        seen.append(request)
        return httpx2.Response(200, json=completion("Yes."))

    assert call(answer, api_key_env="JUDGE_KEY") == [YES]
    (request,) = seen
    assert str(request.url) == "http://server/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-1234567890123456"
    assert json.loads(request.content) == {
        "model": "the-model",
        "messages": [{"role": "user", "content": "Really?"}],
        "temperature": 0.25,
        "max_tokens": 9,
    }


def test_a_json_object_is_asked_for(monkeypatch):
    bodies = []

    def answer(request):
        bodies.append(json.loads(request.content))
        return httpx2.Response(200, json=completion("Yes."))

    call(answer, [ChatRequest(REQUEST.messages, json_object=True), REQUEST])
    assert [body.get("response_format") for body in bodies] == [{"type": "json_object"}, None]


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
def test_a_failing_server_is_asked_again(status):
    (trouble,) = call(replying(status, refusal("not now"), retry_after="7"))
    assert trouble == Trouble(Failure("server_error", f"status {status}: not now"), wait_seconds=7)


def test_a_status_without_words():
    (trouble,) = call(replying(500))
    assert trouble == Trouble(Failure("server_error", "status 500"))
    (trouble,) = call(replying(502, text="<html>\n<h1>Bad gateway</h1>"))
    assert trouble.failure.detail == "status 502: <html> <h1>Bad gateway</h1>"


@pytest.mark.parametrize(("headers", "wait"), [({"retry_after": "3600"}, 3600), ({}, None)])
def test_too_many_requests(headers, wait):
    (trouble,) = call(replying(429, refusal("slow down", code="rate_limit_exceeded"), **headers))
    assert trouble == Trouble(Failure("rate_limit", "status 429: slow down"), wait_seconds=wait)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, None, r"status 400 \(you cannot\) for the model the-model; the server does not take the request"),
        (401, None, r"status 401 for the model the-model; the key is wrong or missing"),
        (402, None, r"status 402 \(you cannot\) .*no credit"),
        (403, None, r"status 403 for the model the-model; the key may not use this model"),
        (404, None, r"status 404 \(you cannot\) .*no such model or address"),
        (405, None, r"status 405 \(you cannot\)"),
        (422, None, r"status 422 \(you cannot\) .*does not take the request"),
        (429, "insufficient_quota", r"status 402 \(you cannot\) .*no credit"),
    ],
)
def test_a_refusal_that_nothing_changes_is_one_message(status, code, message):
    with pytest.raises(UserError, match=rf"^llm\.judge: the server refused with {message}") as raised:
        call(replying(status, refusal("you\ncannot", code)))
    assert str(raised.value).endswith("Then run again; what is answered is kept.")
    assert raised.value.__cause__ is None and raised.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, refusal("too many tokens", "context_length_exceeded")),
        (400, {"message": "This model's maximum context length is 2048 tokens.", "code": 400}),
        (422, {"detail": "the context window is 2048 tokens"}),
        (413, refusal("payload too large")),
    ],
)
def test_a_prompt_that_is_too_long_is_the_failure_of_one_request(status, body):
    (trouble,) = call(replying(status, body))
    assert trouble.failure.reason == "prompt_too_long" and not trouble.again


def test_a_filtered_prompt_is_the_failure_of_one_request():
    (trouble,) = call(replying(400, refusal("the prompt was filtered", "content_filter")))
    assert trouble == Trouble(Failure("refused", "status 400: the prompt was filtered"), again=False)


def test_a_server_that_takes_no_response_format_is_asked_without():
    lines, bodies = [], []

    def answer(request):
        bodies.append(json.loads(request.content))
        if "response_format" in bodies[-1]:
            return httpx2.Response(400, json=refusal("response_format must be json_schema"))
        return httpx2.Response(200, json=completion("Yes."))

    asked = ChatRequest(REQUEST.messages, json_object=True)
    first, *others = call(answer, [asked] * 3, lines.append)
    assert (first.failure.reason, first.again) == ("adapted", True) and others == [YES, YES]
    assert lines == ["llm.judge: the server does not take response_format; the answer's form is left to the prompt"]


def test_a_server_that_wants_max_completion_tokens_gets_them():
    lines, bodies = [], []

    def answer(request):
        bodies.append(json.loads(request.content))
        if "max_tokens" in bodies[-1]:
            return httpx2.Response(400, json=refusal("Use 'max_completion_tokens' instead.", param="max_tokens"))
        return httpx2.Response(200, json=completion("Yes."))

    first, second = call(answer, [REQUEST] * 2, lines.append)
    assert first.failure.reason == "adapted" and second == YES
    assert bodies[1]["max_completion_tokens"] == 9 and len(lines) == 1


def test_a_complaint_about_a_field_that_was_not_sent_is_a_refusal():
    with pytest.raises(UserError, match="status 400"):
        call(replying(400, refusal("response_format is odd")))


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (httpx2.ConnectError("refused"), "unreachable", "ConnectError: refused"),
        (httpx2.ConnectTimeout("late"), "unreachable", "ConnectTimeout: late"),
        (httpx2.ReadTimeout(""), "deadline", "ReadTimeout"),
        (httpx2.ReadError("reset"), "connection_lost", "ReadError: reset"),
        (httpx2.RemoteProtocolError("cut"), "connection_lost", "RemoteProtocolError: cut"),
        (httpx2.DecodingError("gzip"), "connection_lost", "DecodingError: gzip"),
    ],
)
def test_a_connection_that_fails_is_asked_again(error, reason, detail):
    def fail(request):
        raise error

    assert call(fail) == [Trouble(Failure(reason, detail))]


def test_a_deadline_ends_a_call_however_it_drips():
    async def never(request):
        await asyncio.sleep(60)

    assert call(never, deadline_s=0.05) == [Trouble(Failure("deadline", "no answer within 0.05 s"))]


def test_without_the_client_one_is_told_what_to_install(monkeypatch):
    importing = builtins.__import__

    def without_openai(name, *arguments):
        if name.partition(".")[0] == "openai":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importing(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_openai)
    with pytest.raises(UserError, match=r"llm\.judge asks a server, .*: pip install 'deita-train\[llm\]'\."):
        call(replying(200))


def test_probabilities_of_the_first_token_are_asked_for_on_request():
    seen = []

    def answer(request):
        seen.append(json.loads(request.content))
        return httpx2.Response(200, json=completion("A"))

    call(answer, [replace(REQUEST, top_logprobs=5)])
    assert (seen[0]["logprobs"], seen[0]["top_logprobs"]) == (True, 5)


def test_a_server_that_refuses_to_tell_probabilities_is_named():
    refusing = replying(400, refusal("logprobs are not supported with this model"))
    with pytest.raises(NoLogprobs, match=r"llm\.judge: the server gives no probabilities of tokens"):
        call(refusing, [replace(REQUEST, top_logprobs=5)])
    with pytest.raises(UserError, match="refused with status 400") as refused:
        call(refusing)
    assert not isinstance(refused.value, NoLogprobs)

"""A planted key is searched for in every file and in everything that is printed, logged or raised."""

import asyncio
import logging
import traceback

import pytest

from deita_train.errors import UserError
from deita_train.llm.answers import AnswerStore, Failure
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest
from llm.fake_server import FakeServer, Reply, completion, error

KEY = "sk-planted-7d3f9a1c5b2e"
KEY_BEGINS = KEY[:14]
SAYS = f"Incorrect API key provided: {KEY} (Authorization: Bearer {KEY})"
# What a server may do, and whether the key is in what it says.
REPLIES = {
    "good": completion("Yes."),
    "answer": completion(SAYS),
    "refusal": completion(None, refusal=SAYS),
    "400": error(400, SAYS),
    "401": error(401, SAYS),
    "403": error(403, SAYS),
    "404": error(404, SAYS),
    "400_too_long": error(400, SAYS, code="context_length_exceeded"),
    "429": error(429, SAYS),
    "429_quota": error(429, SAYS, code="insufficient_quota"),
    "500": error(500, SAYS),
    "502_html": Reply(f"<html>{SAYS}</html>", 502),
    "html_with_200_cut_in_the_key": Reply(f"{'x' * 140}{SAYS}"),
    "html_with_200": Reply(f"<html>{SAYS}</html>"),
    "broken_json": Reply('{"choices": [{"message": "' + KEY),
    "error_with_200": Reply({"error": {"message": SAYS}}),
    "hang_up": Reply(completion(SAYS), cut_after=150),
    "silence": Reply(silent=True),
}


@pytest.fixture
def lines(monkeypatch, caplog):
    """What Asker tells its stage; every logger is at its most talkative."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    for name in (None, "openai", "httpx2", "httpcore2", "httpx", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    return []


def ask(url, folder, lines, **fields):
    endpoint = Endpoint(
        "judge", "m", base_url=url, api_key_env="JUDGE_KEY", max_attempts=2, deadline_s=0.3, **fields
    )  # fmt: skip
    asker = Asker(
        endpoint, AnswerStore(folder), lambda *told: lines.append(str(told)), lines.append,
        sleep=lambda seconds: asyncio.sleep(0),
    )  # fmt: skip
    try:
        return asker.ask([ChatRequest(({"role": "user", "content": "Really?"},))])
    finally:
        lines.append(repr(asker) + repr(vars(asker)) + repr(endpoint) + str(asker.spending.as_dict()))


def everything(folder, lines, caplog, capfd):
    """The texts in which no key may be, and the number of files among them."""
    files = [path.read_bytes().decode() for path in folder.rglob("*") if path.is_file()]
    printed = capfd.readouterr()
    return "\n".join([*files, *lines, caplog.text, printed.out, printed.err]), len(files)


@pytest.mark.parametrize("name", REPLIES)
def test_no_key_whatever_the_server_says(tmp_path, lines, caplog, capfd, name):
    outcomes = []
    with FakeServer(lambda body: REPLIES[name]) as server:
        try:
            outcomes = ask(server.url, tmp_path, lines)
        except UserError as raised:
            # With the variables of every frame, as some tools show them.
            told = traceback.TracebackException.from_exception(raised, capture_locals=True)
            lines += [str(raised), repr(raised), "".join(told.format())]
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    lines += map(repr, outcomes)
    text, files = everything(tmp_path, lines, caplog, capfd)
    assert KEY_BEGINS not in text
    assert files == (1 if outcomes else 0)
    assert "llm.judge" in text and "HTTP Request" in text  # the loggers were heard
    if outcomes and isinstance(outcomes[0], Failure) and name not in ("hang_up", "silence"):
        assert "[key]" in text


def test_no_key_of_a_server_that_is_not_there(tmp_path, lines, caplog, capfd):
    with pytest.raises(UserError, match="is not reached") as raised:
        ask("http://127.0.0.1:1/v1", tmp_path, lines)
    told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    text, _ = everything(tmp_path, [*lines, "".join(told.format())], caplog, capfd)
    assert KEY_BEGINS not in text and "ConnectError" in text


@pytest.mark.parametrize("value", [f"{KEY} extra", f"{KEY}\r\nX-Evil: 1"])
def test_no_key_that_no_header_can_hold(tmp_path, lines, caplog, capfd, monkeypatch, value):
    monkeypatch.setenv("JUDGE_KEY", value)
    with FakeServer(lambda body: "Yes.") as server:
        with pytest.raises(UserError, match="JUDGE_KEY") as raised:
            ask(server.url, tmp_path, lines)
        assert server.requests == []
    told = traceback.TracebackException.from_exception(raised.value)
    text, _ = everything(tmp_path, [*lines, "".join(told.format())], caplog, capfd)
    assert KEY_BEGINS not in text

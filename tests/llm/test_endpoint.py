import pickle
from pathlib import Path

import pytest

from deita_train.errors import UserError
from deita_train.llm.endpoint import Endpoint, Price, Secret, read_key
from deita_train.llm.requests import ChatRequest

URL = "http://127.0.0.1:1/v1"
KEY = "sk-planted-0123456789abcdef"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"llm\.judge: state one of base_url"),
        ({"base_url": URL, "local": Path("x")}, r"llm\.judge: state one of base_url"),
        ({"base_url": URL, "builtin": "quickstart"}, r"llm\.judge: state one of base_url"),
        ({"builtin": "quickstart", "max_tokens_total": 5}, r"max_tokens_total would do .* base_url instead of builtin"),
        ({"base_url": "localhost:8000"}, r"llm\.judge\.base_url is no address"),
        ({"base_url": "http:///v1"}, r"llm\.judge\.base_url is no address"),
        ({"base_url": "http://host:80a/v1"}, r"llm\.judge\.base_url is no address"),
        ({"base_url": "http://[::1/v1"}, r"llm\.judge\.base_url is no address"),
        ({"base_url": "http://my host/v1"}, r"llm\.judge\.base_url is no address"),
        ({"base_url": f"{URL}/chat/completions/"}, r"llm\.judge\.base_url ends in /chat/completions, which the client"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, r"holds a user, a password, a query or a fragment"),
        ({"base_url": f"http://host/v1?key={KEY}"}, r"holds a user, a password, a query or a fragment"),
        ({"base_url": URL, "max_in_flight": 0}, r"llm\.judge\.max_in_flight is 0; it must be above 0"),
        ({"base_url": URL, "deadline_s": -1.0}, r"llm\.judge\.deadline_s is -1\.0"),
        ({"base_url": URL, "requests_per_minute": 0}, r"llm\.judge\.requests_per_minute is 0"),
        ({"base_url": URL, "max_cost": 5.0}, r"llm\.judge\.max_cost needs llm\.judge\.price"),
        ({"local": Path("x"), "api_key_env": "KEY", "max_tokens_total": 5}, r"api_key_env, max_tokens_total would do"),
        ({"local": Path("x"), "price": Price(1, 1)}, r"price would do nothing for a local model"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(UserError, match=message) as raised:
        Endpoint("judge", "m", **fields)
    assert KEY not in str(raised.value)


def test_the_key_is_read_from_the_environment_when_it_is_needed(monkeypatch):
    endpoint = Endpoint("judge", "m", base_url=URL, api_key_env="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    assert read_key(endpoint).reveal() == KEY
    assert KEY not in repr(endpoint)


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_told_with_the_variables_name(monkeypatch, value):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match=r"llm\.judge: the environment variable JUDGE_KEY is not set"):
        read_key(Endpoint("judge", "m", base_url=URL, api_key_env="JUDGE_KEY"))


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY} x", f"{KEY}\u00e9", f"{KEY}\x7f"])
def test_a_key_that_no_header_could_hold_is_refused_without_being_shown(monkeypatch, value):
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match="JUDGE_KEY holds a space, a line break") as raised:
        read_key(Endpoint("judge", "m", base_url=URL, api_key_env="JUDGE_KEY"))
    assert KEY not in str(raised.value)


def test_a_server_without_keys_does_not_get_the_one_of_another(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert read_key(Endpoint("mine", "m", base_url=URL)).reveal() == "none"


def test_a_secret_has_no_text():
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.removed_from(f"Bearer {KEY}!") == "Bearer [key]!"
    assert secret.removed_from_answer(f"it is {KEY}") == "it is [key]"


def test_words_that_stand_for_no_key_stay_in_answers():
    assert Secret("none").removed_from("none of it") == "none of it"
    assert Secret("EMPTY").removed_from_answer("EMPTY glass") == "EMPTY glass"
    assert Secret("EMPTY").removed_from("bad key EMPTY") == "bad key [key]"


def request(text="a", **fields):
    return ChatRequest(({"role": "user", "content": text},), **fields)


def test_equal_requests_have_equal_keys_and_every_field_counts():
    assert request().key("m") == request(temperature=0).key("m")
    assert ChatRequest(({"content": "a", "role": "user"},)).key("m") == request().key("m")
    others = [
        request("b"), request(temperature=0.5), request(max_tokens=5), request(json_object=True), request(attempt=1),
        ChatRequest(({"role": "system", "content": "a"},)), ChatRequest(request().messages * 2),
    ]  # fmt: skip
    keys = [request().key("m"), request().key("n"), *(other.key("m") for other in others)]
    assert len(set(keys)) == len(keys) == 9
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_request_with_a_lone_surrogate_has_a_key():
    assert len(request("\ud800").key("m")) == 64

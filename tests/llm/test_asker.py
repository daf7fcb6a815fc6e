"""Asking a server on loopback, which misbehaves as a test says."""

import asyncio
import time
import tracemalloc
from collections import Counter
from email.utils import formatdate

import pytest

from deita_train.errors import MachineFault, Stopped, UserError
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Endpoint, Price
from deita_train.llm.requests import ChatRequest
from llm.fake_server import DRIP, MISBEHAVIOURS, SILENCE, FakeServer, Reply, completion, error


def request(text, **fields):
    return ChatRequest(({"role": "user", "content": str(text)},), **fields)


def text_of(body):
    return body["messages"][-1]["content"]


def shout(body):
    return text_of(body).upper()


async def hurry(seconds):
    """Pauses a thousand times shorter."""
    await asyncio.sleep(seconds / 1000)


def make_asker(server, folder, log=print, progress=lambda *_: None, **fields):
    endpoint = Endpoint("judge", "m", base_url=server if isinstance(server, str) else server.url, **fields)
    return Asker(endpoint, AnswerStore(folder), progress, log, sleep=hurry)


def at_first(reply, texts=None, times=1):
    """The reply for the first calls of each request (of these texts)."""
    return lambda body, nth: reply if nth <= times and (texts is None or text_of(body) in texts) else None


def test_answers_come_in_the_order_of_the_requests_and_equal_ones_are_asked_once(tmp_path):
    with FakeServer(shout) as server:
        asker = make_asker(server, tmp_path)
        answers = asker.ask([request(text) for text in ["a", "b", "a", "c", "b", "a"]])
        assert [answer.text for answer in answers] == ["A", "B", "A", "C", "B", "A"]
        assert Counter(map(text_of, server.requests)) == {"a": 1, "b": 1, "c": 1}
        assert answers[0] == Answer("A", "stop", 11, 7)
        assert asker.ask([]) == []
        assert asker.spending.calls == asker.spending.answered == 3


def test_nothing_is_asked_that_another_asker_has_asked(tmp_path):
    lines, progress = [], []
    with FakeServer(shout) as server:
        make_asker(server, tmp_path).ask([request("a"), request("b")])
        asker = make_asker(server, tmp_path, lines.append, lambda *told: progress.append(told))
        answers = asker.ask([request(text) for text in "abc"])
        assert [answer.text for answer in answers] == ["A", "B", "C"]
        assert len(server.requests) == 3
        assert (asker.spending.from_store, asker.spending.calls) == (2, 1)
        assert asker.spending.total.tokens == 3 * 18
        asker.ask([request("a"), request("c")])  # counted once
        assert asker.spending.total.tokens == 3 * 18 and len(server.requests) == 3
    assert lines == [
        "llm.judge: 3 requests, 2 answered before, 1 to ask: about 1 token of prompts and at most 1,024 of answers"
    ]
    assert progress[:2] == [(2, 3, "0 calls, 0 tokens"), (3, 3, "1 call, 18 tokens")]


def test_without_a_question_neither_key_nor_server_is_needed(tmp_path, monkeypatch):
    with FakeServer(shout) as server:
        make_asker(server, tmp_path).ask([request("a")])
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    asker = make_asker("http://127.0.0.1:1/v1", tmp_path, api_key_env="JUDGE_KEY")
    assert asker.ask([request("a")])[0].text == "A"
    with pytest.raises(UserError, match="JUDGE_KEY is not set"):
        asker.ask([request("a"), request("b")])


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_misbehaviour_is_asked_again(tmp_path, name):
    with FakeServer(shout, at_first(MISBEHAVIOURS[name], times=2)) as server:
        asker = make_asker(server, tmp_path)
        assert [answer.text for answer in asker.ask([request("a"), request("b")])] == ["A", "B"]
        assert Counter(map(text_of, server.requests)) == {"a": 3, "b": 3}
        assert asker.spending.calls == 6 and sum(asker.spending.repeated.values()) == 4
        assert asker.spending.failures == {}
        paid = 6 if name in ("empty", "null_content") else 2  # their tokens count, although they are of no use
        assert asker.spending.paid.tokens == paid * 18


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_after_the_attempts_a_request_is_a_failure_and_the_others_are_answered(tmp_path, name):
    with FakeServer(shout, at_first(MISBEHAVIOURS[name], ["bad"], times=99)) as server:
        asker = make_asker(server, tmp_path, max_attempts=3, max_in_flight=1)
        first, bad, last = asker.ask([request("a"), request("bad"), request("c")])
        assert (first.text, last.text) == ("A", "C")
        assert isinstance(bad, Failure) and asker.spending.failures == {bad.reason: 1}
        assert Counter(map(text_of, server.requests)) == {"a": 1, "bad": 3, "c": 1}
    # In the next start it is asked again: a failure is no answer.
    with FakeServer(shout) as server:
        answers = make_asker(server, tmp_path).ask([request("a"), request("bad"), request("c")])
        assert [answer.text for answer in answers] == ["A", "BAD", "C"]
        assert list(map(text_of, server.requests)) == ["bad"]


def test_silence_ends_with_the_deadline(tmp_path):
    with FakeServer(shout, at_first(SILENCE, ["a"])) as server:
        asker = make_asker(server, tmp_path, deadline_s=0.2)
        assert [answer.text for answer in asker.ask([request("a"), request("b")])] == ["A", "B"]
        assert asker.spending.repeated == {"deadline": 1}


def test_one_byte_at_a_time_is_an_answer_within_the_deadline_and_none_beyond(tmp_path):
    slow = Reply(completion("slow but whole"), bytes_per_second=DRIP)
    with FakeServer(lambda body: slow) as server:
        assert make_asker(server, tmp_path).ask([request("a")])[0].text == "slow but whole"
        (failure,) = make_asker(server, tmp_path, deadline_s=0.05, max_attempts=2).ask([request("b")])
        assert failure == Failure("deadline", "no answer within 0.05 s")


def test_an_answer_cut_at_max_tokens_is_an_answer(tmp_path):
    with FakeServer(lambda body: completion("and so", "length")) as server:
        assert make_asker(server, tmp_path).ask([request("a")]) == [Answer("and so", "length", 11, 7)]
        assert len(server.requests) == 1


def test_without_usage_tokens_are_estimated_and_marked(tmp_path):
    with FakeServer(lambda body: completion("x" * 9, usage=None)) as server:
        asker = make_asker(server, tmp_path)
        assert asker.ask([request("x" * 17)]) == [Answer("x" * 9, "stop", None, None)]
        assert (asker.spending.paid.prompt_tokens, asker.spending.paid.completion_tokens) == (5, 3)
        assert asker.spending.as_dict()["answers_with_estimated_tokens"] == 1
        again = make_asker(server, tmp_path)
        again.ask([request("x" * 17)])
        assert (again.spending.earlier.tokens, again.spending.estimated) == (8, 1)


class Waits:
    """A clock on which pauses take no time, and what was waited for."""

    def __init__(self):
        self.seconds = []
        self.passed = 0.0

    def __call__(self):
        return self.passed

    async def sleep(self, seconds):
        self.seconds.append(round(seconds))
        wake = self.passed + seconds
        await asyncio.sleep(0)
        self.passed = max(self.passed, wake)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_however_long_and_shown(tmp_path, form):
    lines, progress, waits = [], [], Waits()
    asked = "7200" if form == "seconds" else formatdate(time.time() + 7200, usegmt=True)
    with FakeServer(shout, at_first(error(429, retry_after=asked))) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, max_in_flight=1, max_attempts=2)
        asker = Asker(
            endpoint, AnswerStore(tmp_path), lambda *told: progress.append(told[2]), lines.append,
            sleep=waits.sleep, clock=waits,
        )  # fmt: skip
        assert asker.ask([request("a")])[0].text == "A"
    assert sum(waits.seconds) == pytest.approx(7200, abs=60)
    words = "llm.judge: the server asks to wait "
    assert [line for line in lines if line.startswith(words)] and [line for line in progress if line.startswith(words)]
    assert "2 h 00 min" in lines[1] or "1 h 59 min" in lines[1]


def test_a_pause_that_the_server_asks_for_holds_for_all_calls(tmp_path):
    """The first of two is refused; the second is not sent before the pause is over."""
    waits = Waits()
    with FakeServer(shout, at_first(error(429, retry_after=100), ["a"])) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, max_in_flight=1)
        asker = Asker(
            endpoint, AnswerStore(tmp_path), lambda *_: None, print, sleep=waits.sleep, clock=waits
        )  # fmt: skip
        asker.ask([request("a"), request("b")])
        assert list(map(text_of, server.requests)) == ["a", "a", "b"]
    assert waits.seconds == [100]


def test_a_rate_limit_that_lets_others_through_is_no_failure(tmp_path):
    """Ten requests at once of a server that answers every third call: each waits for its turn.

    Of any three calls one is answered, so that no request is refused three times with nothing let through in between.
    """
    calls = iter(range(10**6))
    with FakeServer(shout, lambda body, nth: error(429, retry_after=0) if next(calls) % 3 else None) as server:
        asker = make_asker(server, tmp_path, max_attempts=3, max_in_flight=10)
        answers = asker.ask([request(number) for number in range(10)])
        assert [answer.text for answer in answers] == [str(number) for number in range(10)]
        assert asker.spending.calls == len(server.requests) == 28


def test_a_rate_limit_that_lets_nothing_through_ends(tmp_path):
    with (
        FakeServer(shout, lambda body, nth: error(429, retry_after=0)) as server,
        pytest.raises(
            MachineFault, match=r"8 requests one after another .* rate_limit \(status 429: as the test says\)"
        ),
    ):
        make_asker(server, tmp_path, max_attempts=3).ask([request(number) for number in range(20)])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_the_asking_and_keeps_what_was_answered(tmp_path, status):
    with FakeServer(shout, at_first(error(status), ["bad"], times=99)) as server:
        requests = [request(text) for text in ["a", "b", "bad", "c", "d"]]
        with pytest.raises(UserError, match=f"status {status}"):
            make_asker(server, tmp_path, max_in_flight=1).ask(requests)
        assert list(map(text_of, server.requests)) == ["a", "b", "bad"]
        assert len(AnswerStore(tmp_path)) == 2


def test_calls_under_way_at_a_refusal_are_waited_for_and_kept(tmp_path):
    """The refusal comes while seven slow answers, which are paid for, are being written."""
    slow = lambda body: Reply(completion(shout(body)), delay=0.3)  # noqa: E731
    with FakeServer(slow, at_first(error(404), ["bad"], times=99)) as server:
        requests = [request(number) for number in range(7)] + [request("bad")] + [request("later")]
        with pytest.raises(UserError, match="status 404"):
            make_asker(server, tmp_path, max_in_flight=8).ask(requests)
        assert server.sent == 7
        store = AnswerStore(tmp_path)
        assert [store.get(asked.key("m")) is not None for asked in requests] == [True] * 7 + [False, False]


def test_a_refusal_does_not_wait_for_pauses(tmp_path):
    """One request pauses for an hour when another is refused."""

    def misbehave(body, nth):
        return {"a": error(500), "bad": Reply(error(404).body, 404, delay=0.1)}.get(text_of(body))

    with FakeServer(shout, misbehave) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, max_in_flight=2, max_attempts=99)
        asker = Asker(endpoint, AnswerStore(tmp_path), lambda *_: None, print, sleep=lambda _: asyncio.sleep(3600))
        started = time.monotonic()
        with pytest.raises(UserError, match="status 404"):
            asker.ask([request("a"), request("bad")])
        assert time.monotonic() - started < 10


def test_a_server_that_is_not_there_is_told_and_nothing_is_lost(tmp_path):
    with FakeServer(shout) as server:
        make_asker(server, tmp_path).ask([request("a")])
        url = server.url
    lines = []
    with pytest.raises(MachineFault) as raised:
        make_asker(url, tmp_path, lines.append, max_attempts=2).ask([request("a"), request("b")])
    assert str(raised.value).startswith(f"llm.judge: the server at {url} is not reached (ConnectError")
    assert "after 2 attempts" in str(raised.value)
    assert any("unreachable" in line and "attempt 2 of 2" in line for line in lines)
    assert len(AnswerStore(tmp_path)) == 1


def test_a_server_that_fails_every_request_ends_the_asking_unless_they_have_failed_before(tmp_path):
    """With ten requests that can never be answered, the second start comes through."""
    bad = [str(number) for number in range(10)]
    requests = [request(text) for text in [*bad, "a", "b"]]
    with FakeServer(shout, at_first(error(500), bad, times=99)) as server:
        with pytest.raises(MachineFault, match="8 requests one after another were not answered"):
            make_asker(server, tmp_path, max_attempts=2, max_in_flight=1).ask(requests)
        assert len(server.requests) == 16
        outcomes = make_asker(server, tmp_path, max_attempts=2, max_in_flight=1).ask(requests)
        assert [type(outcome) for outcome in outcomes] == [Failure] * 10 + [Answer] * 2


def test_prompts_that_are_too_long_say_nothing_of_the_server(tmp_path):
    with FakeServer(shout, lambda body, nth: error(400, code="context_length_exceeded")) as server:
        outcomes = make_asker(server, tmp_path).ask([request(number) for number in range(20)])
        assert {outcome.reason for outcome in outcomes} == {"prompt_too_long"} and len(server.requests) == 20


def test_the_ceiling_stops_before_the_call_that_could_exceed_it(tmp_path):
    """A call takes 1 + 9 tokens at most and 5 in truth. Of 29, four are made: 15 + 10 fit, 20 + 10 do not."""
    five = lambda body: completion("yes", usage=(1, 4))  # noqa: E731
    requests = [request(number, max_tokens=9) for number in range(9)]
    with FakeServer(five) as server:
        for in_flight in (1, 8):
            folder = tmp_path / str(in_flight)
            before = len(server.requests)
            asker = make_asker(server, folder, max_tokens_total=29, max_in_flight=in_flight)
            with pytest.raises(
                UserError, match=r"max_tokens_total \(29 tokens\).*took 20 tokens, 0 tokens of it before"
            ):
                asker.ask(requests)
            assert len(server.requests) - before == 4 == len(AnswerStore(folder))
        # Another start alone does not go on, a raised ceiling does.
        with pytest.raises(UserError, match="took 20 tokens, 20 tokens of it before"):
            make_asker(server, tmp_path / "1", max_tokens_total=29).ask(requests)
        answers = make_asker(server, tmp_path / "1", max_tokens_total=100).ask(requests)
        assert len(answers) == 9 and len(server.requests) == 4 + 4 + 5


def test_the_ceiling_in_money(tmp_path):
    """A million tokens cost 1 and 10; a call takes 1 + 90 at most, 0.000901, and 1 + 10 in truth, 0.000101."""
    price = Price(1.0, 10.0)
    with FakeServer(lambda body: completion("yes", usage=(1, 10))) as server:
        asker = make_asker(server, tmp_path, price=price, max_cost=0.00111, max_in_flight=1)
        with pytest.raises(UserError, match=r"stopped at max_cost \(0\.0011\)"):
            asker.ask([request(number, max_tokens=90) for number in range(9)])
        assert len(server.requests) == 3
        assert asker.spending.cost == pytest.approx(3 * 0.000101)


def test_requests_per_minute_hold_over_several_asks(tmp_path):
    waits = Waits()
    with FakeServer(shout) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, requests_per_minute=3, max_in_flight=1)
        asker = Asker(endpoint, AnswerStore(tmp_path), lambda *_: None, print, sleep=waits.sleep, clock=waits)
        asker.ask([request(number) for number in range(2)])
        asker.ask([request(number) for number in range(8)])
        assert len(server.requests) == 8
    assert waits.seconds == [60, 60]


def test_tokens_per_minute_count_what_the_server_says(tmp_path):
    """Estimated at 1 + 99, in truth 18 each: six fit into 190 (5 x 18 + 100), the seventh not before a minute."""
    waits = Waits()
    with FakeServer(shout) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, tokens_per_minute=190, max_in_flight=1)
        asker = Asker(endpoint, AnswerStore(tmp_path), lambda *_: None, print, sleep=waits.sleep, clock=waits)
        asker.ask([request(number, max_tokens=99) for number in range(6)])
        assert waits.seconds == []
        asker.ask([request(number, max_tokens=99) for number in range(7)])
    assert waits.seconds == [60]


def test_what_another_process_answers_meanwhile_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("deita_train.llm.ledger._REFRESH_SECONDS", -1.0)
    other = AnswerStore(tmp_path)

    def answer(body):
        last = request("last")
        other.add(last.key("m"), last, Answer("by the other", "stop", 1, 1))
        return shout(body)

    with FakeServer(answer) as server:
        asker = make_asker(server, tmp_path, max_in_flight=1)
        first, last = asker.ask([request("first"), request("last")])
        assert (first.text, last.text) == ("FIRST", "by the other")
        assert len(server.requests) == 1 and asker.spending.from_store == 1


@pytest.mark.parametrize("kind", [Stopped, KeyboardInterrupt, RuntimeError])
def test_what_the_progress_raises_ends_the_asking_at_once_and_keeps_the_answers(tmp_path, kind):
    def progress(done, total, words):
        if done == 3:
            raise kind("now")

    with FakeServer(shout, at_first(SILENCE, ["silent"], times=99)) as server:
        requests = [request(text) for text in ["silent", *range(30)]]
        started = time.monotonic()
        with pytest.raises(kind, match="now"):
            make_asker(server, tmp_path, progress=progress, max_in_flight=2).ask(requests)
        assert time.monotonic() - started < 10
        assert 3 <= len(AnswerStore(tmp_path)) <= 4


def test_every_answer_is_in_the_files_when_the_next_one_is_told(tmp_path):
    seen = []

    def progress(done, total, words):
        seen.append((done, len(AnswerStore(tmp_path))))

    with FakeServer(shout) as server:
        make_asker(server, tmp_path, progress=progress, max_in_flight=4).ask([request(number) for number in range(12)])
    assert seen == [(number, number) for number in range(13)]


def test_answers_are_on_the_disk_soon_after_they_come_and_all_when_ask_returns(tmp_path, monkeypatch):
    store = AnswerStore(tmp_path)
    syncs = []
    syncing = store.sync
    monkeypatch.setattr(store, "sync", lambda: (syncs.append((time.monotonic(), len(store))), syncing()))
    with FakeServer(shout, delay=0.05) as server:
        endpoint = Endpoint("judge", "m", base_url=server.url, max_in_flight=1)
        Asker(endpoint, store, lambda *_: None, print).ask([request(number) for number in range(6)])
    assert syncs[-1][1] == 6
    assert len({number for _, number in syncs}) >= 5


def test_an_answer_that_repeats_the_key_is_kept_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-planted-0123456789abcdef")
    with FakeServer(lambda body: "your key is sk-planted-0123456789abcdef!") as server:
        (answer,) = make_asker(server, tmp_path, api_key_env="JUDGE_KEY").ask([request("a")])
        assert answer.text == "your key is [key]!"
        assert server.headers[0]["authorization"] == "Bearer sk-planted-0123456789abcdef"


def test_damaged_lines_are_told(tmp_path):
    with FakeServer(shout) as server:
        make_asker(server, tmp_path).ask([request("a")])
        (file,) = tmp_path.glob("*.jsonl")
        file.write_bytes(file.read_bytes().replace(b'"text":"A"', b'"text":"B"'))
        lines = []
        assert make_asker(server, tmp_path, lines.append).ask([request("a")])[0].text == "A"
        assert lines[0] == f"{tmp_path}: 1 damaged line not read"


class Made:
    """Requests that are made when they are looked at, of 20 kB each."""

    def __init__(self, number):
        self._number = number

    def __len__(self):
        return self._number

    def __getitem__(self, place):
        if not 0 <= place < self._number:
            raise IndexError(place)
        return request(f"{place} {'x' * 20_000}", max_tokens=5)


def number_of(body):
    return text_of(body).split()[0]


def ask_many(folder, number, progress=lambda *_: None):
    """With 64 at once; nothing is lost, and nothing asked twice."""
    answer = lambda body: f"{number_of(body)} {'y' * 20_000}"  # noqa: E731
    with FakeServer(answer, delay=0.001, keep=number_of) as server:
        asker = make_asker(server, folder, lambda line: None, progress, max_in_flight=64)
        answers = asker.ask(Made(number))
        assert Counter(server.requests) == {str(place): 1 for place in range(number)}
        assert [answer.text.split()[0] for answer in answers] == [str(place) for place in range(number)]
        assert 16 < server.most_at_once <= 64
        assert asker.spending.calls == asker.spending.answered == number


@pytest.mark.faults
def test_two_thousand_requests_with_64_in_flight(tmp_path):
    ask_many(tmp_path, 2000)


@pytest.mark.faults
def test_memory_does_not_grow_with_the_number_of_requests(tmp_path):
    """Until the answers are returned; the prompts and answers of 300 more would be 12 MB."""
    peaks = []

    def progress(done, total, words):
        if done == total:
            peaks.append(tracemalloc.get_traced_memory()[1])

    ask_many(tmp_path / "first", 70)  # imports
    for number in (100, 400):
        tracemalloc.start()
        ask_many(tmp_path / str(number), number, progress)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 6_000_000


def test_two_hundred_requests_with_misbehaviours(tmp_path):
    """The same in little, from a server that fails every third first call in another way."""
    kinds = list(MISBEHAVIOURS.values())

    def misbehave(body, nth):
        number = int(text_of(body))
        return kinds[number % len(kinds)] if nth == 1 and number % 3 == 0 else None

    with FakeServer(shout, misbehave) as server:
        asker = make_asker(server, tmp_path, log=lambda line: None, max_in_flight=64)
        answers = asker.ask([request(number) for number in range(200)])
        assert [answer.text for answer in answers] == [str(number) for number in range(200)]
        times = Counter(int(text_of(body)) for body in server.requests)
        assert times == {number: 2 if number % 3 == 0 else 1 for number in range(200)}
        assert server.most_at_once <= 64


def test_rules_of_the_package_answer_without_a_server_and_keep_nothing(tmp_path):
    from deita_train.evaluation.judge_prompts import RATE, JudgedTurn, own_prompts

    done = []
    endpoint = Endpoint("judge", "rules", builtin="quickstart")
    asker = Asker(endpoint, AnswerStore(tmp_path / "answers"), lambda *now: done.append(now[:2]), print)
    asked = JudgedTurn("Start with 7, add 5. What do you get?", None, ("7 + 5 = 12. So it is 12.",))
    answers = asker.ask([own_prompts(RATE).request([asked], attempt=n, max_tokens=9) for n in range(3)])
    assert [answer.text.splitlines()[-1] for answer in answers] == ["Rating: [[9]]"] * 3
    assert done[-1] == (3, 3) and not (tmp_path / "answers").exists()
    spent = asker.spending.as_dict()
    assert (spent["calls"], spent["prompt_tokens"], spent["completion_tokens"]) == (3, 0, 0)
    with pytest.raises(UserError, match=r"llm\.judge: the rules of builtin: quickstart read only the package's own"):
        asker.ask([request("Hello")])

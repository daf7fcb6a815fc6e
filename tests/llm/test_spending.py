import asyncio
import json

import pytest

from deita_train.llm.answers import Answer, Failure
from deita_train.llm.endpoint import Endpoint, Price
from deita_train.llm.replies import Trouble
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Ceiling, CeilingReached, Spending, Usage, most_usage

URL = "http://127.0.0.1:1/v1"
REQUEST = ChatRequest(({"role": "user", "content": "12345678901"},), max_tokens=10)


def test_a_request_is_expected_to_take_its_prompt_and_a_full_answer():
    """11 characters are 3 tokens at 4 characters each, rounded up."""
    assert most_usage(REQUEST) == Usage(3, 10)


def test_spending_by_hand():
    spending = Spending(Price(input=2.0, output=8.0))
    spending.calls = 5
    spending.add_answer(REQUEST, Answer("x" * 9, "stop", 100, 50), from_store=False)
    spending.add_answer(REQUEST, Answer("x" * 9, "stop", 200, 10), from_store=True)
    assert spending.add_outcome(REQUEST, Answer("x" * 9, "stop", None, None)) == Usage(3, 3)
    empty = Trouble(Failure("no_content", "the answer is empty"), told_tokens=(30, None))
    assert spending.add_outcome(REQUEST, empty) == Usage(30, 0)
    assert spending.add_outcome(REQUEST, Trouble(Failure("server_error", "status 500"))) is None
    spending.failures["no_content"] += 1
    assert json.loads(json.dumps(spending.as_dict())) == {
        "calls": 5,
        "answered": 2,
        "answered_from_store": 1,
        "prompt_tokens": 133,
        "completion_tokens": 53,
        "cost": pytest.approx((133 * 2 + 53 * 8) / 1e6),
        "earlier_prompt_tokens": 200,
        "earlier_completion_tokens": 10,
        "earlier_cost": pytest.approx((200 * 2 + 10 * 8) / 1e6),
        "answers_with_estimated_tokens": 2,
        "failures": {"no_content": 1},
        "repeated_calls": {},
    }
    assert spending.total == Usage(333, 63)
    assert str(spending) == "5 calls, about 186 tokens, about 0.0007"


def test_without_a_price_there_is_no_cost():
    spending = Spending()
    spending.add_answer(REQUEST, Answer("x", "stop", 5, 5), from_store=False)
    assert spending.cost is None and spending.as_dict()["cost"] is None
    assert str(spending) == "0 calls, 10 tokens"


def ceiling(spending, **fields):
    return Ceiling(Endpoint("judge", "m", base_url=URL, **fields), spending)


def test_a_call_that_could_exceed_the_tokens_is_refused_and_one_that_cannot_is_not():
    spending = Spending(paid=Usage(50, 30), earlier=Usage(5, 2))

    async def reserve():
        await ceiling(spending, max_tokens_total=100).reserve(Usage(3, 10))
        await ceiling(spending, max_tokens_total=99).reserve(Usage(3, 10))

    with pytest.raises(CeilingReached) as raised:
        asyncio.run(reserve())
    assert str(raised.value) == (
        "llm.judge: stopped at max_tokens_total (99 tokens). The answers so far took 87 tokens, 7 tokens of it before "
        "this start, and the next call could take 13 tokens. Every answer is kept. Raise llm.judge.max_tokens_total "
        "and run again; what is answered is not asked again."
    )


def test_a_call_that_could_exceed_the_cost_is_refused():
    price = Price(1.0, 10.0)
    spending = Spending(price, paid=Usage(1_000_000, 100_000), earlier=Usage(500_000, 0), estimated=1)

    async def reserve(most, **fields):
        await ceiling(spending, price=price, **fields).reserve(most)

    asyncio.run(reserve(Usage(0, 50_000), max_cost=3.0))
    with pytest.raises(CeilingReached) as raised:
        asyncio.run(reserve(Usage(1, 50_000), max_cost=3.0))
    assert "stopped at max_cost (3.00). The answers so far took about 2.50, 0.5000 of it before" in str(raised.value)
    assert "Raise llm.judge.max_cost and run again" in str(raised.value)


def test_a_call_waits_for_those_under_way_which_may_turn_out_cheaper():
    spending = Spending()
    most = Usage(0, 60)

    async def ask_two(taken):
        limit = ceiling(spending, max_tokens_total=100)
        await limit.reserve(most)
        second = asyncio.create_task(limit.reserve(most))
        await asyncio.sleep(0)
        assert not second.done()
        spending.paid.add(Usage(0, taken))
        limit.release(most)
        await second

    asyncio.run(ask_two(taken=20))
    with pytest.raises(CeilingReached, match="took 60 tokens"):
        asyncio.run(ask_two(taken=40))


def test_without_a_ceiling_nothing_waits():
    async def reserve():
        limit = ceiling(Spending())
        for _ in range(100):
            await limit.reserve(Usage(10**9, 10**9))

    asyncio.run(reserve())

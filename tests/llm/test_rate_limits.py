import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.llm.limits import RateLimits


class Clock:
    """Time that passes only in sleep."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def admitted(requests_per_minute, tokens_per_minute, calls, between=0.0):
    """The times, from 0, at which calls of so many tokens are let through, one after another."""
    clock = Clock()
    limits = RateLimits(requests_per_minute, tokens_per_minute, sleep=clock.sleep, clock=clock)
    times = []

    async def ask_all():
        for tokens in calls:
            times.append((await limits.admit(tokens)).at - 1000)
            clock.now += between

    asyncio.run(ask_all())
    return times


def test_without_limits_nothing_waits_and_nothing_is_remembered():
    clock = Clock()
    limits = RateLimits(None, None, sleep=clock.sleep, clock=clock)
    for _ in range(100):
        asyncio.run(limits.admit(10**9))
    assert clock.slept == [] and len(limits._recent) == 0


def test_requests_per_minute_by_hand():
    """Three at once; each further one 60 seconds after the third before it."""
    assert admitted(3, None, [1] * 8) == [0, 0, 0, 60, 60, 60, 120, 120]
    assert admitted(3, None, [1] * 5, between=10) == [0, 10, 20, 60, 70]


def test_tokens_per_minute_by_hand():
    """100 in a minute: 60 + 40 fit, 50 waits for the 60 to be a minute old, 60 for the 40 as well."""
    assert admitted(None, 100, [60, 40, 50, 60]) == [0, 0, 60, 120]
    assert admitted(None, 100, [60, 40, 50, 60], between=10) == [0, 10, 60, 120]


def test_a_call_of_more_tokens_than_a_minute_may_have_goes_alone():
    assert admitted(None, 100, [50, 500, 10]) == [0, 60, 120]


def test_the_servers_usage_takes_the_estimates_place():
    clock = Clock()
    limits = RateLimits(None, 100, sleep=clock.sleep, clock=clock)

    async def ask_two():
        first = await limits.admit(90)
        first.tokens = 20
        return (await limits.admit(80)).at

    assert asyncio.run(ask_two()) == 1000 and clock.slept == []


def test_a_pause_holds_everything_back_and_only_a_longer_one_is_news():
    clock = Clock()
    limits = RateLimits(None, None, sleep=clock.sleep, clock=clock)
    assert limits.pause(600) is True
    assert limits.pause(600) is False and limits.pause(10) is False
    assert limits.pause(700) is True
    assert asyncio.run(limits.admit(1)).at == 1700
    assert clock.slept == [700]
    assert limits.pause(0) is False


@settings(max_examples=200, deadline=None)
@given(
    requests=st.one_of(st.none(), st.integers(1, 6)),
    tokens=st.one_of(st.none(), st.integers(50, 200)),
    calls=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 400).map(lambda tenths: tenths / 10)), max_size=30),
)
def test_no_sixty_seconds_hold_more_than_is_stated(requests, tokens, calls):
    clock = Clock()
    limits = RateLimits(requests, tokens, sleep=clock.sleep, clock=clock)
    made = []

    async def ask_all():
        for size, service in calls:
            made.append(((await limits.admit(size)).at, size))
            clock.now += service

    asyncio.run(ask_all())
    for start, _ in made:
        window = [size for at, size in made if start <= at < start + 60 - 1e-6]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(window) <= tokens
    if requests is None and tokens is None:
        assert clock.slept == []


@pytest.mark.parametrize("number", [2, 20])
def test_calls_at_once_are_let_through_as_one_after_another(number):
    """All wait in real tasks; the limit holds among them."""
    clock = Clock()

    async def sleep(seconds):
        wake = clock.now + seconds
        await asyncio.sleep(0)
        clock.now = max(clock.now, wake)

    limits = RateLimits(2, None, sleep=sleep, clock=clock)

    async def ask_all():
        return await asyncio.gather(*(limits.admit(1) for _ in range(number)))

    times = sorted(admission.at - 1000 for admission in asyncio.run(ask_all()))
    assert times == [60.0 * (place // 2) for place in range(number)]

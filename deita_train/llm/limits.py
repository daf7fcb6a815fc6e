"""How many calls and tokens a server gets per minute, and the pauses that it asks for."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_WINDOW_SECONDS = 60.0

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass
class Admission:
    """One call that was let through: when, and its tokens, estimated until its answer says how many they were."""

    at: float
    tokens: int


class RateLimits:
    """Lets calls through such that no 60 seconds hold more than the stated calls and tokens.

    A call of more tokens than a minute may have goes alone.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._max_requests = requests_per_minute
        self._max_tokens = tokens_per_minute
        self._sleep = sleep
        self._clock = clock
        self._recent: deque[Admission] = deque()
        self._paused_until = 0.0

    async def admit(self, tokens: int) -> Admission:
        """Wait until a call of so many tokens may be made."""
        while (seconds := self._seconds_to_wait(tokens)) > 0:
            await self._sleep(seconds)
        admission = Admission(self._clock(), tokens)
        if self._max_requests is not None or self._max_tokens is not None:
            self._recent.append(admission)
        return admission

    def pause(self, seconds: float) -> bool:
        """Let nothing through for so long; whether that is longer than before by more than a second."""
        until = self._clock() + seconds
        is_longer = until > max(self._paused_until, self._clock()) + 1
        self._paused_until = max(self._paused_until, until)
        return is_longer

    def _seconds_to_wait(self, tokens: int) -> float:
        now = self._clock()
        while self._recent and self._recent[0].at + _WINDOW_SECONDS <= now:
            self._recent.popleft()
        return max(self._paused_until, self._room_for_call(), self._room_for_tokens(tokens)) - now

    def _room_for_call(self) -> float:
        """When the minute before has room for another call; 0 if now."""
        if self._max_requests is None or len(self._recent) < self._max_requests:
            return 0.0
        return self._recent[-self._max_requests].at + _WINDOW_SECONDS

    def _room_for_tokens(self, tokens: int) -> float:
        """The same for its tokens."""
        if self._max_tokens is None:
            return 0.0
        room_at, excess = 0.0, sum(call.tokens for call in self._recent) + tokens - self._max_tokens
        for call in self._recent:
            if excess <= 0:
                break
            room_at, excess = call.at + _WINDOW_SECONDS, excess - call.tokens
        return room_at

"""Asking a server everything that is missing: many calls at once, repeated where that helps."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

from deita_train.errors import MachineFault, Stopped, UserError
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.calls import ADAPTED, RATE_LIMIT, UNREACHABLE, Caller
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.ledger import Ledger
from deita_train.llm.limits import RateLimits, Sleep
from deita_train.llm.replies import Trouble, pause_before
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Ceiling, Spending, most_usage
from deita_train.number_text import count, duration

_SYNC_SECONDS = 0.04
# So many requests one after another without an answer: it is the server that fails, not they.
_FAILURES_IN_A_ROW = 8
# What lies in the text of a request and says nothing of the server.
_OF_THE_TEXT = frozenset({"prompt_too_long", "refused"})
# While others are answered, these only mean that it was not yet this request's turn.
_PATIENT = frozenset({RATE_LIMIT, UNREACHABLE})
_TOLD_SECONDS = 5.0


class ServerPass:
    """One pass over the missing requests of a ledger."""

    def __init__(
        self,
        endpoint: Endpoint,
        caller: Caller,
        limits: RateLimits,
        ledger: Ledger,
        store: AnswerStore,
        spending: Spending,
        log: Callable[[str], None],
        sleep: Sleep,
    ) -> None:
        self._endpoint = endpoint
        self._caller = caller
        self._limits = limits
        self._ceiling = Ceiling(endpoint, spending)
        self._ledger = ledger
        self._store = store
        self._spending = spending
        self._log = log
        self._sleep = sleep
        self._answers = 0
        self._failures_in_a_row = 0
        self._halted: UserError | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._calling: set[asyncio.Task[None] | None] = set()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Ask everything. At most `max_in_flight` requests are looked at at once.

        A refusal or a ceiling lets the calls under way end, because they are paid for, and starts no others.

        Raises:
            UserError: the server refuses, or a ceiling is reached.
            MachineFault: the server is not reached, or fails again and again.
        """
        missing = self._ledger.missing()
        number = min(self._endpoint.max_in_flight, self._ledger.num_missing)
        self._workers = {asyncio.create_task(self._work(missing)) for _ in range(number)}
        syncing = asyncio.create_task(self._sync_often())
        try:
            await asyncio.gather(syncing, self._wait_for_workers())
        finally:
            # After an unexpected error; otherwise all have ended.
            tasks = {syncing, *self._workers}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._halted is not None:
            raise self._halted

    async def _wait_for_workers(self) -> None:
        done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
        self._over.set()
        for worker in done:
            if not worker.cancelled():  # by a halt
                worker.result()

    async def _sync_often(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _SYNC_SECONDS)
            await asyncio.to_thread(self._store.sync)

    async def _work(self, missing: Iterator[tuple[str, ChatRequest]]) -> None:
        """Take one request after another from those that all workers share."""
        for key, request in missing:
            if self._ledger.answered_meanwhile(key, request):
                continue
            outcome = await self._ask_or_halt(key, request)
            if outcome is None:
                return
            failed_before = self._ledger.failed_before(key)
            self._ledger.keep(key, request, outcome)
            self._watch(outcome, failed_before)
            if self._halted is not None:
                return

    async def _ask_or_halt(self, key: str, request: ChatRequest) -> Answer | Failure | None:
        """None if the pass is halted before there is an outcome."""
        try:
            return await self._ask(key, request)
        except Stopped:
            raise
        except UserError as error:
            self._halt(error)
            return None

    def _halt(self, error: UserError) -> None:
        """Let the calls under way end, and end everything that waits for something else."""
        if self._halted is not None:
            return
        self._halted = error
        for worker in self._workers - self._calling - {asyncio.current_task()}:
            worker.cancel()

    def _watch(self, outcome: Answer | Failure, failed_before: bool) -> None:
        """Halt if nothing is answered any more.

        A request that failed in an earlier start does not count, so that those which can never be answered do not end
        every start before it is through.
        """
        if isinstance(outcome, Answer):
            self._failures_in_a_row = 0
        elif not failed_before and outcome.reason not in _OF_THE_TEXT:
            self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            assert isinstance(outcome, Failure)
            self._halt(
                MachineFault(
                    f"{self._endpoint.label}: {self._failures_in_a_row} requests one after another were not answered, "
                    f"the last one for the reason {outcome.reason} ({outcome.detail}). Every answer is kept. Check the "
                    f"server at {self._endpoint.base_url}, then run again."
                )
            )

    async def _ask(self, key: str, request: ChatRequest) -> Answer | Failure | None:
        """Call until there is an answer or no further call helps; None if the pass was halted meanwhile."""
        counted, others = 0, self._answers
        while True:
            outcome = await self._call(request)
            if isinstance(outcome, Answer):
                self._answers += 1
                return outcome
            reason = outcome.failure.reason
            is_patient = reason in _PATIENT and self._answers > others
            counted += not (is_patient or reason == ADAPTED)
            if not outcome.again or counted >= self._endpoint.max_attempts:
                return self._given_up(outcome.failure)
            if self._halted is not None:
                return None
            others = self._answers
            self._spending.repeated[reason] += 1
            await self._pause(outcome, counted + 1, key)

    def _given_up(self, failure: Failure) -> Failure:
        if failure.reason == UNREACHABLE:
            raise MachineFault(
                f"{self._endpoint.label}: the server at {self._endpoint.base_url} is not reached ({failure.detail}), "
                f"after {self._endpoint.max_attempts} attempts. Start it, or correct base_url, then run again; what is "
                "answered is kept."
            )
        return failure

    async def _call(self, request: ChatRequest) -> Answer | Trouble:
        """One call within the limits and ceilings, and what it took."""
        most = most_usage(request)
        admission = await self._limits.admit(most.tokens)
        await self._ceiling.reserve(most)
        worker = asyncio.current_task()
        self._calling.add(worker)
        self._spending.calls += 1
        try:
            outcome = await self._caller.call(request)
            usage = self._spending.add_outcome(request, outcome)
            if usage is not None:
                admission.tokens = usage.tokens
        finally:
            # Nothing is awaited from here until the answer is kept, so that no halt can lose it.
            self._calling.discard(worker)
            self._ceiling.release(most)
        return outcome

    async def _pause(self, trouble: Trouble, attempt: int, key: str) -> None:
        """Wait as long as the server asks, with all calls, or as long as seems wise, with this one."""
        reason, detail = trouble.failure.reason, trouble.failure.detail
        if reason == ADAPTED:
            return
        if trouble.wait_seconds is not None:
            if self._limits.pause(trouble.wait_seconds) and trouble.wait_seconds >= _TOLD_SECONDS:
                self._tell_pause(trouble.wait_seconds, reason)
            return
        seconds = pause_before(max(attempt, 2), key)
        times = self._spending.repeated[reason]
        if times & (times - 1) == 0:  # the first time, the second, the fourth...
            self._log(
                f"{self._endpoint.label}: {reason} ({detail}), {count(times)} times so far; asking again in "
                f"{duration(seconds)}, attempt {attempt} of {self._endpoint.max_attempts}"
            )
        await self._sleep(seconds)

    def _tell_pause(self, seconds: float, reason: str) -> None:
        words = f"{self._endpoint.label}: the server asks to wait {duration(seconds)} ({reason})"
        self._log(f"{words}; all calls wait. requests_per_minute and tokens_per_minute keep below its limits.")
        self._ledger.report(words)

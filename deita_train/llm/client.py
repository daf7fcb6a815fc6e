"""Asking a chat model many questions: from the store, from a server, or from a model run here."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from deita_train.data.lazy_sequence import in_groups
from deita_train.data.numbered_keys import NumberedDigests
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.calls import Caller
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.ledger import Ledger
from deita_train.llm.limits import Clock, RateLimits, Sleep
from deita_train.llm.requests import ChatRequest
from deita_train.llm.server_pass import ServerPass
from deita_train.llm.spending import Spending, money_text
from deita_train.number_text import count, plural

if TYPE_CHECKING:
    import httpx2

    from deita_train.llm.local import LocalModel

# Of a model that answers here, the requests that are sorted by their length and held at once.
_LOCAL_AT_ONCE = 4096


class Asker:
    """Asks an endpoint for one stage, and counts what it spends.

    `on_progress` is called with the number of distinct requests done in all calls of `ask`, how many there are or are
    `expected` to be, and a few words; what it raises ends the asking at once. `log` takes lines for the stage's log.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: AnswerStore,
        on_progress: Callable[[int, int, str], None],
        log: Callable[[str], None],
        *,
        expected: int = 0,
        transport: "httpx2.AsyncBaseTransport | None" = None,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._on_progress = on_progress
        self._expected = expected
        self._asked_before = 0
        self._log = log
        self._transport = transport
        self._sleep = sleep
        self._limits = RateLimits(endpoint.requests_per_minute, endpoint.tokens_per_minute, sleep=sleep, clock=clock)
        self._spending = Spending(endpoint.price)
        self._counted = NumberedDigests()
        self._local: LocalModel | None = None

    @property
    def spending(self) -> Spending:
        """What was asked so far and what it cost."""
        return self._spending

    def ask(self, requests: Sequence[ChatRequest]) -> list[Answer | Failure]:
        """The answers in the order of the requests; as ``each``, which holds none of them."""
        return list(self.each(requests))

    def each(self, requests: Sequence[ChatRequest]) -> Iterator[Answer | Failure]:
        """The answers in the order of the requests; equal requests are asked once, and those in the store not at all.

        All are asked before the first one is given. Requests may be made where they are read, which is several times.

        Every answer is in the store's files as soon as it has come, and on the disk at most 50 ms (and the time that
        the disk takes) later; all of them are on the disk when the first is given or this raises. A process that is
        killed loses the answers that had not reached it, at most `max_in_flight`.

        Raises:
            UserError: the key is missing, the server refuses, or the next call could exceed a ceiling.
            MachineFault: the server is not reached, or fails again and again.
        """
        if self._endpoint.builtin is not None:
            yield from self._ask_builtin(requests)
            return
        ledger = Ledger(self._endpoint, self._store, self._spending, self._counted, requests, self._tell)
        if self._store.damaged_lines:
            self._log(f"{self._store.folder}: {plural(self._store.damaged_lines, 'damaged line')} not read")
        if ledger.num_missing:
            self._log(self._expectation(ledger))
            try:
                if self._endpoint.local is None:
                    asyncio.run(self._ask_server(ledger))
                else:
                    self._ask_local(ledger)
            finally:
                self._store.sync()
        self._asked_before += ledger.total
        yield from ledger.outcomes()

    def _tell(self, done: int, total: int, words: str) -> None:
        before = self._asked_before
        self._on_progress(before + done, max(self._expected, before + total), words)

    def _expectation(self, ledger: Ledger) -> str:
        """What is to be asked, and what it may cost."""
        most = ledger.most
        cost = most.cost(self._endpoint.price)
        before = count(ledger.total - ledger.num_missing)
        return (
            f"{self._endpoint.label}: {plural(ledger.total, 'request')}, {before} answered before, "
            f"{count(ledger.num_missing)} to ask: about {plural(most.prompt_tokens, 'token')} of prompts and at most "
            f"{count(most.completion_tokens)} of answers"
            + ("" if cost is None else f", at most about {money_text(cost)}")
        )

    async def _ask_server(self, ledger: Ledger) -> None:
        async with Caller(self._endpoint, self._log, self._transport) as caller:
            asking = ServerPass(
                self._endpoint, caller, self._limits, ledger, self._store, self._spending, self._log, self._sleep
            )
            await asking.run()

    def _ask_builtin(self, requests: Sequence[ChatRequest]) -> Iterator[Answer | Failure]:
        """Answers of rules, which are made anew each time and not kept."""
        from deita_train.llm.builtin import builtin_answer

        for number, request in enumerate(requests, start=1):
            answer = builtin_answer(self._endpoint, request)
            self._spending.calls += 1
            self._spending.add_answer(request, answer, from_store=False)
            self._tell(number, len(requests), str(self._spending))
            yield answer
        self._asked_before += len(requests)

    def _ask_local(self, ledger: Ledger) -> None:
        from deita_train.llm.local import LocalModel

        if self._local is None:
            self._local = LocalModel(self._endpoint)
        for missing in in_groups(ledger.missing(), _LOCAL_AT_ONCE):
            for batch in self._local.answers([request for _, request in missing]):
                for place, outcome in batch:
                    key, request = missing[place]
                    self._spending.calls += 1
                    if isinstance(outcome, Answer):
                        self._spending.add_answer(request, outcome, from_store=False)
                    ledger.keep(key, request, outcome)
                self._store.sync()

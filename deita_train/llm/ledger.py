"""What has become of the requests of one `ask`: answered before, answered now, failed, or still to be asked."""

import time
from collections.abc import Callable, Iterator, Sequence

from deita_train.data.numbered_keys import NumberedDigests
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Spending

_REFRESH_SECONDS = 2.0


class Ledger:
    """The distinct requests among those that were asked for.

    Answers are not held here but read from the store when they are wanted, so that memory does not grow with them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: AnswerStore,
        spending: Spending,
        counted: NumberedDigests,
        requests: Sequence[ChatRequest],
        on_progress: Callable[[int, int, str], None],
    ) -> None:
        """Look up every request in the store.

        Args:
            endpoint: whose model is asked.
            store: with the answers of before.
            spending: where answers of the store are counted.
            counted: the keys of the answers that are in the spending already, which is added to.
            requests: may repeat each other.
            on_progress: takes requests done, all distinct requests, and a few words.
        """
        self._model = endpoint.model
        self._store = store
        self._spending = spending
        self._counted = counted
        self._requests = requests
        self._on_progress = on_progress
        self._keys = [request.key(self._model) for request in requests]
        self._failures: dict[str, Failure] = {}
        self._done = 0
        self._total = len(set(self._keys))
        store.refresh()
        self._refreshed = time.monotonic()
        places = {key: place for place, key in reversed(list(enumerate(self._keys)))}
        self._missing = [places[key] for key in dict.fromkeys(self._keys) if not self._find(key, requests[places[key]])]
        self._report()

    @property
    def total(self) -> int:
        """The number of distinct requests."""
        return self._total

    @property
    def num_missing(self) -> int:
        """How many of them had no answer at the start."""
        return len(self._missing)

    def missing(self) -> Iterator[tuple[str, ChatRequest]]:
        """The requests without an answer, with their keys, in their order; some may be answered meanwhile."""
        for place in self._missing:
            yield self._keys[place], self._requests[place]

    def answered_meanwhile(self, key: str, request: ChatRequest) -> bool:
        """Whether another process has answered a request since."""
        if time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._store.refresh()
            self._refreshed = time.monotonic()
        if not self._find(key, request):
            return False
        self._report()
        return True

    def failed_before(self, key: str) -> bool:
        """Whether a request has failed once, in this process or an earlier one."""
        return self._store.failure(key) is not None

    def keep(self, key: str, request: ChatRequest, outcome: Answer | Failure) -> None:
        """Keep what a request has come to; its tokens are in the spending already."""
        self._store.append(key, request, outcome, self._model)
        self._counted.add(bytes.fromhex(key))
        if isinstance(outcome, Failure):
            self._failures[key] = outcome
            self._spending.failures[outcome.reason] += 1
        self._done += 1
        self._report()

    def report(self, words: str) -> None:
        """Tell the progress with words of one's own."""
        self._on_progress(self._done, self._total, words)

    def outcomes(self) -> list[Answer | Failure]:
        """What became of every request, in their order."""
        return [self._outcome(key) for key in self._keys]

    def _outcome(self, key: str) -> Answer | Failure:
        if key in self._failures:
            return self._failures[key]
        answer = self._store.get(key)
        assert answer is not None, "a request was neither answered nor failed"
        return answer

    def _find(self, key: str, request: ChatRequest) -> bool:
        answer = self._store.get(key)
        if answer is None:
            return False
        if self._counted.number_of(bytes.fromhex(key)) is None:
            self._counted.add(bytes.fromhex(key))
            self._spending.add_answer(request, answer, from_store=True)
        self._done += 1
        return True

    def _report(self) -> None:
        self.report(str(self._spending))

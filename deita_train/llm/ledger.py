"""What has become of the requests of one `ask`: answered before, answered now, failed, or still to be asked."""

import time
from array import array
from collections.abc import Callable, Iterator, Sequence

from deita_train.data.numbered_keys import NumberedDigests
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Spending, Usage, most_usage

_REFRESH_SECONDS = 2.0
_DIGEST_BYTES = 32


class Ledger:
    """The distinct requests among those that were asked for.

    Requests and answers are not held here: those are made anew, and these read from the store, where they are wanted.
    Memory holds some eighty bytes for each.
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
            requests: may repeat each other; each is read up to twice.
            on_progress: takes requests done, all distinct requests, and a few words.
        """
        self._model = endpoint.model
        self._store = store
        self._spending = spending
        self._counted = counted
        self._requests = requests
        self._on_progress = on_progress
        self._digests = bytearray()
        self._missing = array("q")
        self._most = Usage()
        self._failures: dict[str, Failure] = {}
        self._done = 0
        store.refresh()
        self._refreshed = time.monotonic()
        self._total = self._look_up()
        self._report()

    def _look_up(self) -> int:
        """Find each request's key and whether it has an answer; how many different ones there are."""
        distinct = NumberedDigests()
        for place, request in enumerate(self._requests):
            key = request.key(self._model)
            digest = bytes.fromhex(key)
            self._digests += digest
            if distinct.number_of(digest) is None:
                distinct.add(digest)
                if not self._find(key, request):
                    self._missing.append(place)
                    self._most.add(most_usage(request))
        return len(distinct)

    @property
    def total(self) -> int:
        """The number of distinct requests."""
        return self._total

    @property
    def most(self) -> Usage:
        """The most that those without an answer at the start are expected to take."""
        return self._most

    @property
    def num_missing(self) -> int:
        """How many of them had no answer at the start."""
        return len(self._missing)

    def missing(self) -> Iterator[tuple[str, ChatRequest]]:
        """The requests without an answer, with their keys, in their order; some may be answered meanwhile."""
        for place in self._missing:
            yield self._key(place), self._requests[place]

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

    def outcomes(self) -> Iterator[Answer | Failure]:
        """What became of every request, in their order."""
        return map(self._outcome, map(self._key, range(len(self._requests))))

    def _key(self, place: int) -> str:
        return self._digests[place * _DIGEST_BYTES : (place + 1) * _DIGEST_BYTES].hex()

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

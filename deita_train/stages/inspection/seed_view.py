"""What a chat model is asked about one seed, and what it has answered: the steps of its chain, or its rankings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.evolve.chains import Seed, Version, first_version
from deita_train.evolve.elimination import OK
from deita_train.evolve.ranking import FEWEST_VERSIONS, Ranking, good_versions, is_settled
from deita_train.llm.answers import AnswerStore
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.asker import model_in_keys
from deita_train.stages.asking.evolve import Steps
from deita_train.stages.asking.rank import Rounds

NOT_ASKED = "not answered yet"


@dataclass(frozen=True)
class Exchange:
    """One question to the chat model.

    Attributes:
        title: what it is for.
        outcome: what its answer came to.
        question: the prompt.
        answer: the whole answer; None where there is none.
    """

    title: str
    outcome: str
    question: str
    answer: str | None


class SeedView:
    """The questions about one seed, with the answers of the store that its stages share."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store

    def chain(self, evolve: Mapping[str, Any], seed: Seed) -> list[Version]:
        """The chain as far as it is answered, by the identity of the stage `evolve`."""
        chain = [first_version(seed, evolve["dimension"])]
        steps = Steps(evolve)
        while len(chain) <= evolve["evolutions"]:
            answer = self._store.get(steps.request(chain).key(model_in_keys(evolve)))
            if answer is None:
                break
            chain.append(steps.version(chain, answer))
        return chain

    def steps(self, evolve: Mapping[str, Any], chain: Sequence[Version]) -> Iterator[Exchange]:
        """The questions of a chain, and the one that comes next if it is not at its end."""
        steps = Steps(evolve)
        for step in range(1, min(len(chain), evolve["evolutions"]) + 1):
            before = chain[:step]
            asked = steps.request(before)
            title = f"step {step}, {steps.operation(before)}"
            if step < len(chain):
                version = chain[step]
                outcome = "kept" if version.is_good else f"dropped: {version.status}"
                yield Exchange(title, outcome, _text(asked), version.raw)
            else:
                yield Exchange(title, self._unanswered(evolve, asked), _text(asked), None)

    def rankings(self, rank: Mapping[str, Any], chain: Sequence[Version]) -> Iterator[Exchange]:
        """The questions of all rounds, with their repetitions as far as they are answered."""
        rounds, versions = Rounds(rank), good_versions(chain)
        for round in range(rank["orders"]):
            for attempt in range(rank["ask_again"] + 1):
                asked = rounds.request(versions, round, attempt)
                again = f", asked again ({attempt})" if attempt else ""
                title = f"ranking {round + 1} of {rank['orders']}{again}"
                answer = self._store.get(asked.key(model_in_keys(rank)))
                if answer is None:
                    yield Exchange(title, self._unanswered(rank, asked), _text(asked), None)
                    break
                ranking = rounds.ranking(versions, round, attempt, answer)
                yield Exchange(title, _scores(ranking, versions), _text(asked), ranking.raw)
                if is_settled(ranking):
                    break

    def _unanswered(self, identity: Mapping[str, Any], request: ChatRequest) -> str:
        failure = self._store.failure(request.key(model_in_keys(identity)))
        return NOT_ASKED if failure is None else f"failed: {failure.reason} ({failure.detail})"


def is_compared(chain: Sequence[Version]) -> bool:
    """Whether a whole chain has enough good versions to be ranked."""
    return len(good_versions(chain)) >= FEWEST_VERSIONS


def _text(request: ChatRequest) -> str:
    (message,) = request.messages
    return message["content"]


def _scores(ranking: Ranking, versions: Sequence[Version]) -> str:
    """`step 0: 2, step 1: 4`, or why there are none."""
    if ranking.scores is None:
        assert ranking.status != OK
        return f"unusable: {ranking.status}"
    return "scores: " + ", ".join(
        f"step {version.step}: {score}" for version, score in zip(versions, ranking.scores, strict=True)
    )

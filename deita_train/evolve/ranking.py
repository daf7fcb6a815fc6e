"""The joint ranking: one model scores all good versions of one seed in one prompt, from 1 to 6 (paper 2.3 and 2.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from deita_train.evolve.chains import Version
from deita_train.evolve.elimination import CUT_OFF, OK, is_final, reason_of_call
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.reading import Unusable
from deita_train.evolve.score_reading import read_scores
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest

MAX_TOKENS = 1024
FEWEST_VERSIONS = 2
"""A text that is compared with nothing has no rank."""
NOTHING_TO_COMPARE = "nothing_to_compare"
Whole = TypeVar("Whole", int, np.ndarray)


@dataclass(frozen=True, slots=True)
class Ranking:
    """One answer about the versions of one seed.

    Attributes:
        seed_id: of the versions.
        round: which of several rankings of them, from 0.
        attempt: how often this round was asked before.
        order: in which they were listed, as positions among the good versions of the chain.
        scores: of the good versions, in the order of the chain; None if the answer is unusable.
        status: "ok", or why it is unusable.
        raw: the whole answer; None where there was none.
    """

    seed_id: str
    round: int
    attempt: int
    order: tuple[int, ...]
    scores: tuple[int, ...] | None
    status: str
    raw: str | None


def good_versions(chain: Sequence[Version]) -> list[Version]:
    """The versions of a chain that were not eliminated, which are ranked together; the seed is one of them."""
    return [version for version in chain if version.is_good]


def ranking_request(
    prompts: Prompts,
    versions: Sequence[Version],
    order: Sequence[int],
    *,
    attempt: int = 0,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
) -> ChatRequest:
    """Ask a model to score all versions of one seed together.

    Args:
        prompts: of the dimension.
        versions: the good versions of one seed, in the order of the chain.
        order: in which they are listed, as `order_of` draws it.
        attempt: how often the round was asked before.
        temperature: of sampling.
        max_tokens: of the answer.
    """
    assert sorted(order) == list(range(len(versions))), f"{order} is no order of {len(versions)} versions"
    question = versions[0].instruction if prompts.dimension == "quality" else None
    content = prompts.render_ranking([versions[position].text for position in order], instruction=question)
    messages = ({"role": "user", "content": content},)
    return ChatRequest(messages, temperature=temperature, max_tokens=max_tokens, json_object=True, attempt=attempt)


def judge_ranking(answer: Answer | Failure, order: Sequence[int], *, seed_id: str, round: int, attempt: int) -> Ranking:
    """The scores in the answer to `ranking_request`, or why there are none.

    An answer that was cut off counts if all scores are in it.

    Args:
        answer: of the model.
        order: in which the versions were listed.
        seed_id: of the versions.
        round: that was asked.
        attempt: how often it was asked before.
    """
    listed = _listed_scores(answer, len(order))
    raw = answer.text if isinstance(answer, Answer) else None
    if isinstance(listed, str):
        return Ranking(seed_id, round, attempt, tuple(order), None, listed, raw)
    of_position = dict(zip(order, listed, strict=True))
    scores = tuple(of_position[position] for position in range(len(order)))
    return Ranking(seed_id, round, attempt, tuple(order), scores, OK, raw)


def _listed_scores(answer: Answer | Failure, count: int) -> list[int] | str:
    failed = reason_of_call(answer)
    if isinstance(answer, Failure) or failed not in (None, CUT_OFF):
        assert failed is not None
        return failed
    scores = read_scores(answer.text, count)
    return (failed or scores.reason) if isinstance(scores, Unusable) else scores


def last_attempts(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The last attempt of each round of each seed, in the order of seeds and rounds in which they come."""
    last: dict[tuple[str, int], Ranking] = {}
    for ranking in rankings:
        known = last.get((ranking.seed_id, ranking.round))
        if known is None or known.attempt < ranking.attempt:
            last[(ranking.seed_id, ranking.round)] = ranking
    return list(last.values())


def nearest_level(scores: Sequence[int]) -> int:
    """The mean of scores to the nearest whole number, a half up."""
    return level_of_mean(sum(scores), len(scores))


def level_of_mean(total: Whole, number: Whole) -> Whole:
    """A mean to the nearest whole number, a half up; in whole numbers, so that no half is lost.

    Args:
        total: of the scores; one, or an array of them.
        number: of the scores.
    """
    return (2 * total + number) // (2 * number)


def is_settled(ranking: Ranking) -> bool:
    """Whether a round needs no further answer: it has its scores, or asking again would not help."""
    return ranking.scores is not None or is_final(ranking.status)


def calls_per_seed(evolutions: int, orders: int, asked_again: int) -> tuple[int, int]:
    """How many calls a seed costs, as expected and at most.

    Args:
        evolutions: steps of a chain.
        orders: rounds of ranking.
        asked_again: how often an unusable round is asked again at most.

    Returns:
        The calls if every ranking can be used at once, and if none ever can.
    """
    return evolutions + orders, evolutions + orders * (1 + asked_again)

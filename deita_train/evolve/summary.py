"""What a card and a report tell of chains and rankings, as plain data."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from heapq import nsmallest
from itertools import pairwise
from typing import Any

from deita_train.evolve.agreement import agreement, monotonicity, place_effect
from deita_train.evolve.chains import Version
from deita_train.evolve.elimination import OK
from deita_train.evolve.judge_warnings import judge_warnings
from deita_train.evolve.operations import draw
from deita_train.evolve.ranking import NOTHING_TO_COMPARE, Ranking, good_versions, last_attempts, nearest_level
from deita_train.evolve.score_reading import HIGHEST, LOWEST

NUM_EXAMPLES = 3
EXAMPLE_CHARS = 1200
"""Of a text in an example; a longer one ends with an ellipsis."""

Chains = Mapping[str, Sequence[Version]]
Scores = Sequence[tuple[int, ...]]


def evolve_summary(chains: Iterable[Sequence[Version]]) -> dict[str, Any]:
    """What became of the evolutions.

    Args:
        chains: all versions of each seed.

    Returns:
        `seeds`; `evolutions` asked for; `kept`; `drops`, the others by reason; `good_versions`, how many chains have
        how many of them; and `operations`, the same by operation.
    """
    seeds, good, outcomes = 0, Counter[int](), Counter[tuple[str, str]]()
    for chain in chains:
        seeds += 1
        good[len(good_versions(chain))] += 1
        outcomes.update((str(version.operation), version.status) for version in chain if version.step > 0)
    return {
        "seeds": seeds,
        **_outcomes(outcomes),
        "good_versions": _by_name(good),
        "operations": {
            name: _outcomes({one: number for one, number in outcomes.items() if one[0] == name})
            for name in sorted({name for name, _ in outcomes})
        },
    }


def rank_summary(chains: Chains, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """What the rankings say, and whether the judge can be believed.

    Args:
        chains: all versions of each seed, by its id.
        rankings: all answers, those that were asked again too.

    Returns:
        `seeds`, `seeds_ranked`, `seeds_dropped` by reason; `answers`, and `answers_unusable` of them by reason;
        `rounds_dropped` by the reason of their last answer; `scores`, how many ranked versions have which level;
        `score_by_step`; `operations`, the mean rise of the score by operation; `monotonicity`, `agreement` and
        `place_effect`, None where there is nothing to measure; and `warnings`.
    """
    last = last_attempts(rankings)
    scores = _usable_scores(last)
    moves = monotonicity(list(map(_mean, zip(*of_seed, strict=True))) for of_seed in scores.values())
    orders = agreement(scores.values())
    place = place_effect(last)
    return {
        "seeds": len(chains),
        "seeds_ranked": len(scores),
        "seeds_dropped": _seeds_dropped(chains, last, scores),
        "answers": len(rankings),
        "answers_unusable": _counts(ranking.status for ranking in rankings if ranking.status != OK),
        "rounds_dropped": _counts(ranking.status for ranking in last if ranking.status != OK),
        "scores": _levels(scores.values()),
        "score_by_step": _score_by_step(chains, scores),
        "operations": _rise_by_operation(chains, scores),
        "monotonicity": None if moves is None else asdict(moves),
        "agreement": None if orders is None else asdict(orders),
        "place_effect": None if place is None else asdict(place),
        "warnings": [asdict(warning) for warning in judge_warnings(moves, orders, place)],
    }


def chain_examples(
    chains: Chains, rankings: Sequence[Ranking], count: int = NUM_EXAMPLES, max_chars: int = EXAMPLE_CHARS
) -> list[dict[str, Any]]:
    """Chains for a person to read: some of the ranked seeds, drawn by their ids and not picked for their scores.

    Returns:
        For each seed its `seed_id` and its `versions`, the eliminated ones too: `step`, `operation`, `status`, `text`,
        and for the good ones `score` (the mean) and `target`, else None. For quality the `instruction`, else None.
    """
    scores = _usable_scores(last_attempts(rankings))
    ranked = (seed_id for seed_id in chains if seed_id in scores)
    drawn = nsmallest(count, ranked, key=lambda seed_id: draw("example", seed_id))
    return [_example(chains[seed_id], scores[seed_id], max_chars) for seed_id in drawn]


def _example(chain: Sequence[Version], scores: Scores, max_chars: int) -> dict[str, Any]:
    of_good = iter(zip(*scores, strict=True))
    versions = []
    for version in chain:
        of_version = next(of_good) if version.is_good else None
        versions.append(
            {
                "step": version.step,
                "operation": version.operation,
                "status": version.status,
                "text": _cut(version.text, max_chars),
                "score": None if of_version is None else _mean(of_version),
                "target": None if of_version is None else nearest_level(of_version),
            }
        )
    instruction = None if chain[0].response is None else _cut(chain[0].instruction, max_chars)
    return {"seed_id": chain[0].seed_id, "instruction": instruction, "versions": versions}


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]}\N{HORIZONTAL ELLIPSIS}"


def _outcomes(outcomes: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """How many versions there are, how many of them were kept, and why not the others.

    Args:
        outcomes: versions by operation and status.
    """
    drops = Counter[str]()
    for (_, status), number in outcomes.items():
        drops[status] += number
    evolutions, kept = drops.total(), drops.pop(OK, 0)
    return {"evolutions": evolutions, "kept": kept, "drops": _by_name(drops)}


def _counts(values: Iterable[Any]) -> dict[str, int]:
    """How often each value is there, by name."""
    return _by_name(Counter(values))


def _by_name(counted: Mapping[Any, int]) -> dict[str, int]:
    return {str(value): number for value, number in sorted(counted.items())}


def _usable_scores(last: Iterable[Ranking]) -> dict[str, list[tuple[int, ...]]]:
    """The scores of each seed's usable rankings, of its good versions in the order of the chain."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for ranking in last:
        if ranking.scores is not None:
            found.setdefault(ranking.seed_id, []).append(ranking.scores)
    return found


def _seeds_dropped(chains: Chains, last: Iterable[Ranking], scores: Mapping[str, Scores]) -> dict[str, int]:
    """Seeds without a usable ranking, by the reason of their last one."""
    reasons = {ranking.seed_id: ranking.status for ranking in last}
    return _counts(reasons.get(seed_id, NOTHING_TO_COMPARE) for seed_id in chains if seed_id not in scores)


def _levels(scores: Iterable[Scores]) -> dict[str, int]:
    counted = Counter(nearest_level(of_version) for of_seed in scores for of_version in zip(*of_seed, strict=True))
    return {str(level): counted[level] for level in range(LOWEST, HIGHEST + 1)}


def _scored(chains: Chains, scores: Mapping[str, Scores]) -> Iterator[list[tuple[Version, float]]]:
    """The good versions of each ranked chain with their mean scores."""
    for seed_id, chain in chains.items():
        if seed_id in scores:
            yield list(zip(good_versions(chain), map(_mean, zip(*scores[seed_id], strict=True)), strict=True))


def _score_by_step(chains: Chains, scores: Mapping[str, Scores]) -> list[dict[str, float]]:
    by_step: dict[int, list[float]] = {}
    for chain in _scored(chains, scores):
        for version, score in chain:
            by_step.setdefault(version.step, []).append(score)
    return [
        {"step": step, "versions": len(found), "mean_score": _mean(found)} for step, found in sorted(by_step.items())
    ]


def _rise_by_operation(chains: Chains, scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """By how much the score rises from the version before, by the operation that made the later one."""
    by_operation: dict[str, list[float]] = {}
    for chain in _scored(chains, scores):
        for (_, before), (version, after) in pairwise(chain):
            by_operation.setdefault(str(version.operation), []).append(after - before)
    return {name: {"versions": len(rises), "mean_rise": _mean(rises)} for name, rises in sorted(by_operation.items())}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

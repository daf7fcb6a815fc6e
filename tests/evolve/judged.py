"""Chains and rankings for tests, made in code."""

import random

from deita_train.evolve.chains import Version
from deita_train.evolve.operations import OPERATIONS, operation_of, order_of
from deita_train.evolve.ranking import Ranking
from deita_train.llm.answers import Answer


def answered(text, finish_reason="stop"):
    return Answer(text, finish_reason, 10, 10)


def chain_of(seed_id, statuses=("ok",) * 6, dimension="complexity"):
    """A chain with the seed and a version of each further status."""
    versions = []
    for step, status in enumerate(statuses):
        operation = operation_of(seed_id, step, OPERATIONS[dimension], 0) if step else None
        instruction = f"{seed_id} task {step if dimension == 'complexity' else 0}"
        response = f"{seed_id} answer {step}" if dimension == "quality" else None
        versions.append(Version(seed_id, step, operation, instruction, response, status, "raw" if step else None))
    return versions


def ranking_of(seed_id, scores, round=0, attempt=0, status="ok"):
    """A ranking whose scores are stated in the order of the chain."""
    order = tuple(order_of(seed_id, round, len(scores), 0, attempt))
    kept = tuple(scores) if status == "ok" else None
    return Ranking(seed_id, round, attempt, order, kept, status, f"answer {round}")


def stepped(seed_id, text, *steps):
    """A chain of the seed's text and (operation, status) for each step."""
    first = Version(seed_id, 0, None, text, None, "ok", None)
    later = [
        Version(seed_id, n, name, f"{seed_id} {n}", None, status, "r") for n, (name, status) in enumerate(steps, 1)
    ]
    return [first, *later]


def three_chains(text):
    """Chains of which one is ranked in two orders, one in one, and one is nothing but its seed."""
    return {
        "a": stepped("a", text, ("deepen", "ok"), ("concretize", "copy"), ("deepen", "ok")),
        "b": stepped("b", text, ("concretize", "ok"), ("concretize", "empty"), ("deepen", "copy")),
        "c": stepped("c", text, ("deepen", "copy"), ("deepen", "failed_deadline"), ("deepen", "copy")),
    }


def rankings_of_three():
    """The rankings of `three_chains`."""
    return [
        ranking_of("a", [1, 3, 6], 0),
        ranking_of("a", [1, 4, 5], 1),
        ranking_of("b", [2, 2, 2], 0, 0, "all_tied"),
        ranking_of("b", [2, 1], 0, 1),
        ranking_of("b", [2, 1], 1, 0, "no_scores"),
    ]


def random_scores(rng: random.Random, count=6):
    while True:
        scores = [rng.randint(1, 6) for _ in range(count)]
        if len(set(scores)) > 1:
            return scores

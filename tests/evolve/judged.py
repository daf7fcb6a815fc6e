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


def random_scores(rng: random.Random, count=6):
    while True:
        scores = [rng.randint(1, 6) for _ in range(count)]
        if len(set(scores)) > 1:
            return scores

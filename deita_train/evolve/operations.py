"""The operations of the paper (2.3 and 2.4), and every draw of a chain, made from ids alone.

The same recipe asks the same questions: no draw depends on the order of the seeds, on other seeds, or on answers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import factorial
from types import MappingProxyType
from typing import Literal

Dimension = Literal["complexity", "quality"]

OPERATIONS: Mapping[Dimension, tuple[str, ...]] = MappingProxyType(
    {
        "complexity": ("add_constraints", "deepen", "concretize", "increase_reasoning"),
        "quality": ("helpfulness", "relevance", "depth", "creativity", "detail"),
    }
)
"""How a version may be evolved: an instruction into a more complex one, a response into a better one."""


# More than the rounds that a recipe may ask for.
_STRIDE = 7


def operation_of(seed_id: str, step: int, operations: Sequence[str], seed: int) -> str:
    """The operation of a chain's step, each with the same probability.

    Args:
        seed_id: of the chain's seed.
        step: from 1.
        operations: to draw from; another order of them is another draw.
        seed: of the recipe.
    """
    return operations[int(draw("operation", seed, seed_id, step), 16) % len(operations)]


def order_of(seed_id: str, round: int, count: int, seed: int, attempt: int = 0) -> list[int]:
    """The order in which a seed's versions are listed for their joint ranking, each order with the same probability.

    Rounds have different orders as long as there are enough, since a second answer to the same question says nothing of
    the judge; so have the attempts of a round, because a model without sampling would repeat an unusable answer.

    Args:
        seed_id: of the versions' seed.
        round: which of several rankings of the same versions, from 0.
        count: of the versions.
        seed: of the recipe.
        attempt: how often this round was asked before.

    Returns:
        Positions of versions: the first listed one is `versions[order[0]]`.
    """
    number = factorial(count)
    # Without a factor in common with the number of orders of few versions, so that attempts meet all of them in turn.
    stride = _STRIDE if number > _STRIDE else max(number - 1, 1)
    place = (round + attempt * stride) % number
    found: dict[tuple[int, ...], None] = {}
    drawn = 0
    while len(found) <= place:
        found[tuple(sorted(range(count), key=lambda at: draw("order", seed, seed_id, drawn, at)))] = None
        drawn += 1
    return list(list(found)[place])


def draw(*what: str | int) -> str:
    """SHA-256 in hexadecimal of what is drawn for: 256 bits that look random and are always the same."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()

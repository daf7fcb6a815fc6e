"""Draws of rows by seed and id: which rows are drawn does not depend on their order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from deita_train.data.texts import order_of_texts
from deita_train.errors import UserError


@dataclass(frozen=True)
class Draw:
    """How many of a source's usable rows are drawn; one of three ways.

    Attributes:
        seed: of the draw.
        rows: that many.
        fraction: that share of them, above 0 and below 1; to the nearest whole number, a half up.
        weight: a share of the pool, above 0 (see ``draw_sizes``).
    """

    seed: int
    rows: int | None = None
    fraction: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        assert sum(way is not None for way in (self.rows, self.fraction, self.weight)) == 1, self


def draw_sizes(draws: Mapping[str, Draw | None], counts: Mapping[str, int]) -> dict[str, int]:
    """How many rows to draw from each source that has a draw.

    Sources with a weight give rows in proportion to it, as many as all of them can without repeating a row: with N_i
    usable rows and weights w_i, source i gives w_i * min_j(N_j / w_j) rows, rounded down. The source that is exhausted
    first gives all of its rows. Weights count as the decimal numbers that they are written as. Sources without a weight
    are not part of the proportion.

    Args:
        draws: each source's draw; None for a source that is used whole.
        counts: usable rows by source.

    Raises:
        UserError: a source has fewer rows than are asked for, or would give none.
    """
    weights = {
        name: Fraction(str(draw.weight)) for name, draw in draws.items() if draw is not None and draw.weight is not None
    }
    unit = min((counts[name] / weight for name, weight in weights.items()), default=Fraction(0))
    sizes = {}
    for name, draw in draws.items():
        if draw is None:
            continue
        if draw.rows is not None:
            stated, sizes[name] = f"rows: {draw.rows}", draw.rows
        elif draw.fraction is not None:
            stated = f"fraction: {draw.fraction}"
            sizes[name] = math.floor(Fraction(str(draw.fraction)) * counts[name] + Fraction(1, 2))
        else:
            stated, sizes[name] = f"weight: {draw.weight}", math.floor(weights[name] * unit)
        _check_size(name, stated, sizes[name], counts[name])
    return sizes


def _check_size(name: str, stated: str, size: int, count: int) -> None:
    if size > count:
        raise UserError(f"{stated}: source {name!r} has {count} usable rows; state at most {count}, or leave it out")
    if size == 0:
        raise UserError(f"{stated}: of the {count} usable rows of source {name!r} this is none; state more")


def drawn_rows(ids: Sequence[str], size: int, seed: int) -> np.ndarray:
    """Which of the rows with these ids are drawn, ``[N]`` bool, ``size`` of them.

    The ids are put in order and shuffled by the seed, and the first ones are drawn. So the draw depends on seed and ids
    alone, and a smaller draw lies within a larger one of the same rows.
    """
    drawn = np.zeros(len(ids), dtype=bool)
    drawn[order_of_texts(ids)[np.random.default_rng(seed).permutation(len(ids))[:size]]] = True
    return drawn


def drawn_from_sources(draws: Mapping[str, Draw | None], ids: Mapping[str, Sequence[str]]) -> np.ndarray | None:
    """Which rows of all sources, one source after another, are used, ``[N]`` bool; None if no source has a draw.

    Raises:
        UserError: as ``draw_sizes`` does.
    """
    sizes = draw_sizes(draws, {name: len(of_source) for name, of_source in ids.items()})
    if not sizes:
        return None
    used = []
    for name, of_source in ids.items():
        draw = draws[name]
        whole = np.ones(len(of_source), dtype=bool)
        used.append(whole if draw is None else drawn_rows(of_source, sizes[name], draw.seed))
    return np.concatenate(used)

"""Measuring several selections from one pool in the same way, and comparing them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, iter_values
from deita_train.data.texts import TextColumn, places_of
from deita_train.errors import UserError
from deita_train.selection.measures.compared import Comparison, Composition, Diversity, Measured
from deita_train.selection.measures.composition import (
    conversation_sizes,
    jaccard,
    share_beyond,
    source_shares,
    spread,
    total_variation,
)
from deita_train.selection.measures.diversity import facility_location, nearest_similarities, vendi_score
from deita_train.selection.measures.novel_sum import density_factors, novel_sum
from deita_train.selection.pool_columns import number_column
from deita_train.selection.repr_filter.unit_rows import UnitRows, name_rows

# Called before each step: steps done, steps in all, and what comes next.
OnStep = Callable[[int, int, str], None]


def _report_nothing(done: int, total: int, what: str) -> None:
    """Ignores the progress."""


def compare(
    pool: datasets.Dataset,
    embeddings: np.ndarray | None,
    selections: Mapping[str, Sequence[str]],
    *,
    scores: np.ndarray | None = None,
    token_column: str | None = None,
    tokens: np.ndarray | None = None,
    mean_of: Sequence[str] = (),
    seeds: Mapping[str, Sequence[str]] = MappingProxyType({}),
    max_length: int | None = None,
    center: bool = False,
    num_neighbours: int = 10,
    on_step: OnStep = _report_nothing,
) -> Comparison:
    """Measure selections of one pool.

    With embeddings, a selection of n rows costs about N n D + 2 n² D multiply-adds, and NovelSum's density factors cost
    N D for each row that any selection holds: for three selections of 10K out of 300K x 4,096 about 7.5e13 in all,
    which takes minutes. Memory holds the rows of one selection (for the density factors, those of all) as float32 unit
    vectors, and one block of the pool with its similarities.

    Args:
        pool: N rows with `id` and `messages`, and perhaps `source`.
        embeddings: `[N, D]` float32 or float16 in the order of `pool`, `np.memmap` allowed; without them diversity is
            not measured.
        selections: ids of the rows of each selection, by its name.
        scores: `[N]` float64, such as evol scores, nan for a row without one.
        token_column: a column of `pool` with the number of tokens of each row.
        tokens: `[N]` int64, the number of tokens of each row, in place of a column; `max_length` is then in characters.
        mean_of: columns of `pool` with numbers, whose means are measured.
        seeds: for each method that was drawn with several seeds, the names of its selections.
        max_length: where a training cuts a row, in tokens if `token_column` is given, else in characters.
        center: whether the pool's mean is subtracted from every embedding first, as in the selection.
        num_neighbours: K of NovelSum's density factor.
        on_step: called before each step of the measures of diversity, which are nearly all of the work.

    Raises:
        UserError: there is no selection, or one is empty, repeats an id or names one that the pool lacks;
            `token_column` is missing or has other values than token counts; a column of `mean_of` is missing or
            holds no numbers; or an embedding has no direction.
    """
    if not selections:
        raise UserError("there is no selection to compare; give the ids of at least one.")
    ids = TextColumn(arrow_column(pool, "id"))
    chosen = _positions(ids, selections)
    facts = _Facts.read(pool, scores, token_column, tokens, max_length, mean_of)
    whole = facts.of(np.arange(len(ids)))
    found = {name: facts.of(positions) for name, positions in chosen.items()}
    diversity: dict[str, Diversity] = {}
    if embeddings is not None:
        diversity = _diversity(UnitRows.measure(embeddings, ids, center=center), chosen, num_neighbours, on_step)
    return Comparison(
        pool=whole,
        selections={name: Measured(rows, diversity.get(name), _distance(rows, whole)) for name, rows in found.items()},
        overlap=jaccard([set(selected) for selected in selections.values()]),
        max_length=max_length,
        unit="characters" if token_column is None else "tokens",
        seeds=seeds,
    )


def _positions(ids: Sequence[str], selections: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Positions in the pool of each selection's rows, `[n]` int64, ascending."""
    positions = {}
    for name, selected in selections.items():
        places = places_of(selected, ids)
        unknown = np.flatnonzero(places < 0)
        if len(unknown):
            raise UserError(
                f"selection '{name}': {len(unknown)} of {len(selected)} rows are not in the pool: "
                f"{name_rows(selected, unknown)}. Compare selections with the pool that they were made from."
            )
        if not len(selected) or len(set(selected)) < len(selected):
            what = "holds an id more than once" if len(selected) else "is empty"
            raise UserError(f"selection '{name}' {what}; it needs one id for each of its rows.")
        positions[name] = np.sort(places)
    return positions


@dataclass(frozen=True)
class _Facts:
    """What is known of N rows without their embeddings; arrays are `[N]`."""

    scores: np.ndarray | None
    characters: np.ndarray
    tokens: np.ndarray | None
    lengths: np.ndarray
    turns: np.ndarray
    sources: pa.ChunkedArray | None
    max_length: int | None
    columns: Mapping[str, np.ndarray]

    @classmethod
    def read(
        cls,
        pool: datasets.Dataset,
        scores: np.ndarray | None,
        token_column: str | None,
        tokens: np.ndarray | None,
        max_length: int | None,
        mean_of: Sequence[str],
    ) -> "_Facts":
        assert scores is None or scores.shape == (len(pool),), f"{scores.shape} scores for {len(pool)} rows"
        characters, turns = conversation_sizes(pool)
        lengths = characters
        if token_column is not None:
            tokens = lengths = _tokens(pool, token_column)
        sources = arrow_column(pool, "source") if "source" in pool.column_names else None
        columns = {name: number_column(pool, name) for name in mean_of}
        return cls(scores, characters, tokens, lengths, turns, sources, max_length, columns)

    def of(self, rows: np.ndarray) -> Composition:
        """The composition of the rows at these positions."""
        return Composition(
            num_rows=len(rows),
            mean_score=None if self.scores is None else _mean(self.scores[rows]),
            characters=spread(self.characters[rows]),
            tokens=None if self.tokens is None else spread(self.tokens[rows]),
            turns=spread(self.turns[rows]),
            beyond=None if self.max_length is None else share_beyond(self.lengths[rows], self.max_length),
            sources=None if self.sources is None else source_shares(iter_values(self.sources.take(pa.array(rows)))),
            columns={name: _mean(numbers[rows]) for name, numbers in self.columns.items()},
        )


def _mean(numbers: np.ndarray) -> float | None:
    """Of the numbers that are there; None where none is."""
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else None


def _tokens(pool: datasets.Dataset, column: str) -> np.ndarray:
    counts = number_column(pool, column)
    wrong = np.flatnonzero(~((counts >= 1) & (counts == np.floor(counts))))
    if len(wrong):
        raise UserError(
            f"column '{column}' holds no token count for {len(wrong)} of {len(counts)} rows: "
            f"{name_rows(TextColumn(arrow_column(pool, 'id')), wrong)}. It must hold a whole number above 0 for each."
        )
    return counts


def _diversity(
    pool: UnitRows, chosen: Mapping[str, np.ndarray], num_neighbours: int, on_step: OnStep
) -> dict[str, Diversity]:
    steps = len(chosen) + 1
    on_step(0, steps, "how dense the pool is")
    every = np.unique(np.concatenate(list(chosen.values())))
    factors = density_factors(pool, every, num_neighbours=num_neighbours)
    found = {}
    for done, (name, positions) in enumerate(chosen.items(), start=1):
        on_step(done, steps, name)
        found[name] = _diversity_of(pool, positions, factors[np.searchsorted(every, positions)])
    on_step(steps, steps, "")
    return found


def _diversity_of(pool: UnitRows, positions: np.ndarray, factors: np.ndarray) -> Diversity:
    novelty = novel_sum(pool, positions, factors)
    return Diversity(
        nearest=spread(nearest_similarities(pool, positions)) if len(positions) > 1 else None,
        facility_location=facility_location(pool, positions),
        vendi_score=vendi_score(pool, positions),
        novel_sum=None if np.isnan(novelty) else novelty,
    )


def _distance(rows: Composition, pool: Composition) -> float | None:
    if rows.sources is None or pool.sources is None:
        return None
    return total_variation(rows.sources, pool.sources)

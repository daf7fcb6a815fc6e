"""The results of a comparison of selections, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deita_train.selection.measures.composition import Spread
from deita_train.selection.trace.trace_columns import QUANTILES


@dataclass(frozen=True)
class Composition:
    """What a set of rows is made of.

    Attributes:
        num_rows: how many rows.
        mean_score: mean of the scores of the rows that have one; None without scores.
        characters: of a conversation.
        tokens: of a conversation; None where they were not given.
        turns: user turns of a conversation.
        beyond: share of the text beyond the maximum length, see `share_beyond`; None without one.
        sources: share of the rows by source; None where the pool has no column `source`.
        columns: means of columns of the pool, such as a rating that no method reads, over the rows that have a number;
            None where none has.
    """

    num_rows: int
    mean_score: float | None
    characters: Spread
    tokens: Spread | None
    turns: Spread
    beyond: float | None
    sources: Mapping[str, float] | None
    columns: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int | None:
        """Tokens of all rows together."""
        return None if self.tokens is None else round(self.tokens.mean * self.num_rows)


@dataclass(frozen=True)
class Diversity:
    """The measures of diversity of one selection.

    Attributes:
        nearest: highest similarity of a row to another selected row; None for a single row.
        facility_location: mean similarity of the pool's rows to the nearest selected row.
        vendi_score: effective number of distinct rows.
        novel_sum: NovelSum; None for a single row, and in a pool whose embeddings are all equal.
    """

    nearest: Spread | None
    facility_location: float
    vendi_score: float
    novel_sum: float | None


@dataclass(frozen=True)
class Measured:
    """One selection.

    Attributes:
        composition: what its rows are made of.
        diversity: how diverse they are; None without embeddings.
        source_distance: total variation distance of their sources from the pool's; None without a column `source`.
    """

    composition: Composition
    diversity: Diversity | None
    source_distance: float | None


@dataclass(frozen=True)
class Comparison:
    """Selections from one pool by name, in the order given, and the pool that they come from.

    Attributes:
        pool: what the whole pool is made of.
        selections: the measures of each.
        overlap: `[M, M]` float64 Jaccard index of each pair of selections, in the same order.
        max_length: the limit behind `beyond`; None without one.
        unit: what `max_length` counts, "tokens" or "characters".
        seeds: for each method that was drawn with several seeds, the names of its selections.
    """

    pool: Composition
    selections: Mapping[str, Measured]
    overlap: np.ndarray
    max_length: int | None
    unit: str
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values; quantiles by their level, from "0" to "1"."""
    selections = {
        name: {
            "composition": _composition_json(item.composition),
            "diversity": None if item.diversity is None else _diversity_json(item.diversity),
            "source_distance": item.source_distance,
        }
        for name, item in comparison.selections.items()
    }
    return {
        "pool": _composition_json(comparison.pool),
        "selections": selections,
        "overlap": comparison.overlap.tolist(),
        "max_length": comparison.max_length,
        "unit": comparison.unit,
        **({"seeds": {name: list(of) for name, of in comparison.seeds.items()}} if comparison.seeds else {}),
    }


def from_json(values: Mapping[str, Any]) -> Comparison:
    """The inverse of :func:`as_json`."""
    return Comparison(
        pool=_composition(values["pool"]),
        selections={name: _measured(item) for name, item in values["selections"].items()},
        overlap=np.array(values["overlap"]),
        max_length=values["max_length"],
        unit=values["unit"],
        seeds=values.get("seeds", {}),
    )


def _composition_json(rows: Composition) -> dict[str, Any]:
    spreads = {name: _spread_json(getattr(rows, name)) for name in ("characters", "tokens", "turns")}
    return {**asdict(rows), **spreads}


def _diversity_json(diversity: Diversity) -> dict[str, Any]:
    return {**asdict(diversity), "nearest": _spread_json(diversity.nearest)}


def _spread_json(item: Spread | None) -> dict[str, Any] | None:
    if item is None:
        return None
    levels = (f"{level:g}" for level in QUANTILES)
    return {"mean": item.mean, "quantiles": dict(zip(levels, item.quantiles, strict=True))}


def _measured(values: Mapping[str, Any]) -> Measured:
    diversity = values["diversity"]
    return Measured(
        _composition(values["composition"]),
        None if diversity is None else Diversity(**{**diversity, "nearest": _spread(diversity["nearest"])}),
        values["source_distance"],
    )


def _composition(values: Mapping[str, Any]) -> Composition:
    return Composition(**{**values, **{name: _spread(values[name]) for name in ("characters", "tokens", "turns")}})


def _spread(values: Mapping[str, Any] | None) -> Spread | None:
    return None if values is None else Spread(values["mean"], tuple(values["quantiles"].values()))

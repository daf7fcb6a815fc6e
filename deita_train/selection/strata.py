"""Selecting from parts of a pool: the budget is divided among strata, and the method selects within each.

No paper of its own: stratified sampling (Neyman 1934) for any method. A stratum is the rows with one value of a column,
such as their source, or the rows of one k-means cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deita_train.data.arrow_columns import arrow_column
from deita_train.errors import UserError
from deita_train.selection.baselines.clusters import cluster_labels
from deita_train.selection.baselines.pool_products import order_of_ids
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.settings import EMBEDDING_CLUSTERS
from deita_train.selection.unrankable import Reasons

# Selects up to a number of rows, at most all, given the trace of the same rows with fewer.
Select = Callable[[Candidates, int, Trace | None], Trace]


@dataclass(frozen=True)
class Stratified:
    """A selection from strata.

    Attributes:
        trace: of N rows; ranks go through all strata in step, so that every beginning has about the whole's mix.
        counts: for each stratum, by name: its `rows`, the `quota` of the budget that its share came to, and how many
            were `selected`, fewer where it ran out and more where it took what others could not fill.
    """

    trace: Trace
    counts: dict[str, dict[str, int]]


def select_by_strata(
    candidates: Candidates, names: Sequence[str], budget: int, share: Any, select: Select, *, prefixes: bool
) -> Stratified:
    """Divide a budget among strata by their shares, and select within each.

    The quotas are the shares of the budget by largest remainders, ties to the first name. A stratum that cannot fill
    its quota, because it has too few rows or the method passes over too many, gives the rest to the strata that may
    have more, by their shares again, until the budget is met or none has more. Each is then selected anew with what it
    got, continuing where the method can.

    Args:
        candidates: N rows.
        names: the stratum of each.
        budget: rows, at least 1.
        share: "equal", "proportional" (to the strata's rows), or a weight for each stratum.
        select: the method.
        prefixes: whether a smaller budget of the method keeps the first rows of a larger one.

    Raises:
        UserError: `share` names a stratum that is not there, or lacks one.
    """
    members = _members(names)
    weights = _weights(members, share)
    quotas = quota_of(weights, budget)
    parts = {name: candidates.subset(places.tolist()) for name, places in members.items()}
    sizes = {name: len(places) for name, places in members.items()}
    found, traces = dict.fromkeys(members, 0), dict[str, Trace]()
    while True:
        asked = divided(weights, sizes, budget, found)
        for name in members:
            if asked[name] > found[name]:
                traces[name] = select(parts[name], asked[name], traces.get(name) if prefixes else None)
                found[name] = traces[name].num_kept
        ended = {name: found[name] for name in members if found[name] < asked[name]}
        if not ended:
            break
        sizes |= ended
    counts = {
        name: {"rows": len(places), "quota": quotas[name], "selected": found[name]} for name, places in members.items()
    }
    return Stratified(_joined(members, traces, len(names)), counts)


def divided(
    weights: Mapping[str, float], sizes: Mapping[str, int], budget: int, found: Mapping[str, int]
) -> dict[str, int]:
    """How many rows each stratum is asked for in all: those found, and its share of what is left of the budget.

    What a stratum has no rows for is shared among the others again.

    Args:
        weights: the share of each stratum, in any unit.
        sizes: the most rows that each can give.
        budget: rows.
        found: rows that each has given already.
    """
    asked = dict(found)
    while True:
        left = budget - sum(asked.values())
        open_weights = {name: weight for name, weight in weights.items() if weight > 0 and asked[name] < sizes[name]}
        if not left or not open_weights:
            return asked
        for name, quota in quota_of(open_weights, left).items():
            asked[name] += min(quota, sizes[name] - asked[name])


def quota_of(weights: Mapping[str, float], budget: int) -> dict[str, int]:
    """The shares of a budget in whole rows, by largest remainders, ties to the first name."""
    total = sum(weights.values())
    exact = {name: budget * weight / total for name, weight in weights.items()}
    whole = {name: int(number) for name, number in exact.items()}
    favoured = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in favoured[: budget - sum(whole.values())]:
        whole[name] += 1
    return whole


def strata_of(candidates: Candidates, strata: Mapping[str, Any]) -> list[str]:
    """The stratum of each row: the value of a column as text, or its cluster, numbered by its first id.

    Raises:
        UserError: there are fewer rows than clusters, or a row has no value (`without_stratum` says which).
    """
    if strata["by"] == EMBEDDING_CLUSTERS:
        labels = cluster_labels(candidates, strata["clusters"], strata["seed"])
        order = order_of_ids(candidates.ids)
        numbers = {int(label): number for number, label in enumerate(dict.fromkeys(labels[order].tolist()))}
        width = len(str(len(numbers) - 1))
        return [f"cluster {numbers[int(label)]:0{width}}" for label in labels]
    return [str(value) for value in _values(candidates, strata["by"])]


def without_stratum(candidates: Candidates, strata: Mapping[str, Any] | None) -> Reasons:
    """Why each row belongs to no stratum: it has no value in the column.

    Raises:
        UserError: the column is missing or holds something else than texts, whole numbers or yes/no values.
    """
    if strata is None or strata["by"] == EMBEDDING_CLUSTERS:
        return [None] * len(candidates.ids)
    return ["no_stratum" if value is None else None for value in _values(candidates, strata["by"])]


def _values(candidates: Candidates, column: str) -> list[Any]:
    rows = candidates.rows
    if column not in rows.column_names:
        raise UserError(
            f"the pool has no column '{column}' to take strata from; it has {', '.join(rows.column_names)}. Name one "
            f"of these, or {EMBEDDING_CLUSTERS}."
        )
    kind = str(getattr(rows.features[column], "dtype", "list"))
    if not kind.startswith(("string", "large_string", "int", "uint", "bool", "null")):
        raise UserError(
            f"column '{column}' holds neither texts nor whole numbers nor yes/no values in each row, so it names no "
            "strata. Name another column."
        )
    coded = arrow_column(rows, column).combine_chunks().dictionary_encode()
    distinct = [*coded.dictionary.to_pylist(), None]  # found at -1
    return [distinct[code] for code in coded.indices.fill_null(-1).to_numpy()]


def _members(names: Sequence[str]) -> dict[str, np.ndarray]:
    """The positions `[n]` int64 of each stratum's rows, by name."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    codes = np.fromiter((numbers[name] for name in names), np.int32, len(names))
    parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return dict(zip(numbers, parts, strict=True))


def _weights(members: Mapping[str, np.ndarray], share: Any) -> dict[str, float]:
    if share == "equal":
        return dict.fromkeys(members, 1.0)
    if share == "proportional":
        return {name: float(len(places)) for name, places in members.items()}
    unknown = [name for name in share if name not in members]
    missing = [name for name in members if name not in share]
    if unknown or missing:
        wrong = f"names {', '.join(unknown)}, of which no row can be selected" if unknown else ""
        wrong += " and " if unknown and missing else ""
        wrong += f"has none for {', '.join(missing)} (state 0 to keep no row)" if missing else ""
        raise UserError(f"select.strata.share: {wrong}. State a share for each of {', '.join(members)}.")
    if not any(share[name] for name in members):
        raise UserError("select.strata.share: every share is 0; state one above it.")
    return {name: float(share[name]) for name in members}


def _joined(members: Mapping[str, np.ndarray], traces: Mapping[str, Trace], num_rows: int) -> Trace:
    """One trace of all rows, ranked by how far each is through its own stratum, ties by the stratum's name."""
    joined = Trace.empty(num_rows)
    places: list[tuple[float, str, int]] = []
    for name, trace in traces.items():
        rows, kept = members[name], trace.kept
        joined.nearest_similarity[rows] = trace.nearest_similarity
        joined.blocked_by[rows] = np.where(trace.blocked_by >= 0, rows[trace.blocked_by], -1)
        places += [((rank + 0.5) / len(kept), name, int(rows[row])) for rank, row in enumerate(kept)]
    for rank, (_, _, row) in enumerate(sorted(places)):
        joined.selection_rank[row] = rank
    return joined

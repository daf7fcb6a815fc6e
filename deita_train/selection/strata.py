"""Selecting from parts of a pool: the budget is divided among strata, and the method selects within each.

No paper of its own: stratified sampling (Neyman 1934) for any method. A stratum is the rows with one value of a column,
such as their source, or the rows of one k-means cluster.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from deita_train.data.arrow_columns import arrow_column
from deita_train.errors import UserError
from deita_train.selection.baselines.clusters import cluster_labels
from deita_train.selection.candidates import Candidates
from deita_train.selection.cost import Size, refuse_days
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.row_ids import order_of_ids
from deita_train.selection.settings import EMBEDDING_CLUSTERS
from deita_train.selection.token_budget import FirstRowExceedsBudget, walk_tokens
from deita_train.selection.unrankable import Reasons

# Selects up to a number of rows, at most all, given the trace of the same rows with fewer.
Select = Callable[[Candidates, int, Trace | None], Trace]


@dataclass(frozen=True)
class Stratified:
    """A selection from strata.

    Attributes:
        trace: of N rows; ranks go through all strata in step, so that every beginning has about the whole's mix.
        counts: for each stratum, by name: its `rows`, the `quota` of the budget that its share came to, and how many
            rows were `selected`, fewer where it ran out and more where it took what others could not fill; with a
            budget of tokens also the `tokens` of these, and the quota is in tokens.
        met: whether the strata together could fill the budget.
    """

    trace: Trace
    counts: dict[str, dict[str, int]]
    met: bool


@dataclass(frozen=True)
class _Stratum:
    """The rows of one stratum, and their training tokens `[n]` int64 where the budget counts these."""

    candidates: Candidates
    tokens: np.ndarray | None

    @property
    def amount(self) -> int:
        """The most that it can give, in the unit of the budget."""
        return len(self.candidates.ids) if self.tokens is None else int(self.tokens.sum())

    def walk(self, select: Select, wanted: int, earlier: Trace | None) -> tuple[Trace, bool]:
        """Select up to `wanted` rows or tokens; returns whether there were enough, even if the next row is too long."""
        walk = partial(select, self.candidates)
        if self.tokens is None:
            trace = walk(wanted, earlier)
            return trace, trace.num_kept == wanted
        try:
            return walk_tokens(walk, self.tokens, wanted, earlier)
        except FirstRowExceedsBudget:
            return Trace.empty(len(self.tokens)), True

    def given(self, trace: Trace) -> int:
        """How many rows or tokens were selected."""
        return trace.num_kept if self.tokens is None else int(self.tokens[trace.kept].sum())


def select_by_strata(
    candidates: Candidates,
    names: Sequence[str],
    budget: int,
    share: Any,
    select: Select,
    *,
    prefixes: bool,
    tokens: np.ndarray | None = None,
) -> Stratified:
    """Divide a budget among strata by their shares, and select within each.

    The quotas are the shares of the budget by largest remainders, ties to the first name. A stratum that cannot fill
    its quota, because it has too few rows or the method passes over too many, gives the rest to the strata that may
    have more, by their shares again, until the budget is met or none has more. Each is then selected anew with what it
    got, continuing where the method can. Of a quota of tokens each walks to the first row that would exceed it; what
    that row leaves over goes to no other stratum.

    Args:
        candidates: N rows.
        names: the stratum of each.
        budget: rows, at least 1, or tokens.
        share: "equal", "proportional" (to the strata's rows, or their tokens), or a weight for each stratum.
        select: the method.
        prefixes: whether a smaller budget of the method keeps the first rows of a larger one.
        tokens: `[N]` int64, the training tokens of each row, for a budget of tokens.

    Raises:
        UserError: `share` names a stratum that is not there, or lacks one; or no stratum's first row is within its
            quota.
    """
    members = _members(names)
    strata = {
        name: _Stratum(_drawn_apart(candidates.subset(places), name), None if tokens is None else tokens[places])
        for name, places in members.items()
    }
    sizes = {name: stratum.amount for name, stratum in strata.items()}
    weights = _weights(sizes, share)
    found, traces = dict.fromkeys(strata, 0), dict[str, Trace]()
    while True:
        asked = divided(weights, sizes, budget, found)
        ended: dict[str, int] = {}
        for name, stratum in strata.items():
            if asked[name] > found[name]:
                earlier = traces.get(name) if prefixes else None
                traces[name], enough = stratum.walk(select, asked[name], earlier)
                found[name] = asked[name] if enough else stratum.given(traces[name])
                ended |= {} if enough else {name: found[name]}
        if not ended:
            break
        sizes |= ended
    if not any(trace.num_kept for trace in traces.values()):
        raise UserError(
            f"the budget is {budget:,} tokens, and in no stratum is the first row within its share of it; raise it."
        )
    counts = _counts(strata, quota_of(weights, budget), traces)
    return Stratified(_joined(members, traces, len(names)), counts, sum(found.values()) == budget)


def _drawn_apart(stratum: Candidates, name: str) -> Candidates:
    """The rows of a stratum with a seed of its own: one seed would draw the same places in each.

    Where the strata hold the same questions in the same order, these would be the same questions.
    """
    seed = stratum.settings.seed
    if seed is None:
        return stratum
    own = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest(), "big")
    return replace(stratum, settings=replace(stratum.settings, seed=own))


def _counts(
    strata: Mapping[str, _Stratum], quotas: Mapping[str, int], traces: Mapping[str, Trace]
) -> dict[str, dict[str, int]]:
    counts = {}
    for name, stratum in strata.items():
        trace = traces.get(name, Trace.empty(0))
        counts[name] = {"rows": len(stratum.candidates.ids), "quota": quotas[name], "selected": trace.num_kept}
        if stratum.tokens is not None:
            counts[name]["tokens"] = stratum.given(trace)
    return counts


def divided(
    weights: Mapping[str, float], sizes: Mapping[str, int], budget: int, found: Mapping[str, int]
) -> dict[str, int]:
    """How much each stratum is asked for in all: what it gave, and its share of what is left of the budget.

    What a stratum does not have is shared among the others again.

    Args:
        weights: the share of each stratum, in any unit.
        sizes: the most that each can give, in rows or tokens as all that follows.
        budget: of all strata.
        found: what each has given already.
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
    """The shares of a budget in whole numbers, by largest remainders, ties to the first name."""
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
        UserError: there are fewer rows than clusters, clustering would take days, or a row has no value
            (`without_stratum` says which).
    """
    if strata["by"] == EMBEDDING_CLUSTERS:
        assert candidates.embeddings is not None
        rows, dim = candidates.embeddings.shape
        refuse_days("kmeans", Size(rows, dim, clusters=strata["clusters"]))
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


def _weights(sizes: Mapping[str, int], share: Any) -> dict[str, float]:
    if share == "equal":
        return dict.fromkeys(sizes, 1.0)
    if share == "proportional":
        return {name: float(size) for name, size in sizes.items()}
    unknown = [name for name in share if name not in sizes]
    missing = [name for name in sizes if name not in share]
    if unknown or missing:
        wrong = f"names {', '.join(unknown)}, of which no row can be selected" if unknown else ""
        wrong += " and " if unknown and missing else ""
        wrong += f"has none for {', '.join(missing)} (state 0 to keep no row)" if missing else ""
        raise UserError(f"select.strata.share: {wrong}. State a share for each of {', '.join(sizes)}.")
    if not any(share[name] for name in sizes):
        raise UserError("select.strata.share: every share is 0; state one above it.")
    return {name: float(share[name]) for name in sizes}


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

"""Methods that cover tags, which say what a conversation is about; an LLM or InsTag's tagger writes them.

A smaller budget keeps a prefix of a larger one.
"""

from collections.abc import Mapping, Sequence, Set

import numpy as np
from scipy import sparse

from deita_train.selection.baselines.lazy_greedy import lazy_greedy
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order
from deita_train.selection.row_ids import order_of_ids

# MIG's information of a label that x has flowed to, (x + 1e-6) ** 0.8, as in its public code.
_EXPONENT, _OFFSET = 0.8, 1e-6


def instag(candidates: Candidates, budget: int) -> Trace:
    """Complexity-first diverse sampling (InsTag, Lu et al. 2023, algorithm 1).

    Rows are ordered by their number of tags, the most first, ties by id. A round walks down the rows that are left and
    keeps each one with a tag that no row kept in this round has; then the next round begins with no tag covered, until
    the budget is reached.
    """
    order = walk_order(candidates.ids, np.array([len(tags) for tags in candidates.tags], dtype=np.float64))
    tags_at = [candidates.tags[position] for position in order]
    left: dict[str, list[int]] = {}  # for each tag the places of its rows in the order, from last to first
    for place in reversed(range(len(order))):
        for tag in tags_at[place]:
            left.setdefault(tag, []).append(place)
    kept: list[int] = []
    while left and len(kept) < budget:
        kept += _round(left, tags_at)
        left = _without(left, set(kept))
    return trace_of(len(order), order[kept[:budget]])


def _round(left: Mapping[str, Sequence[int]], tags_at: Sequence[Sequence[str]]) -> list[int]:
    """The places that one round keeps, ascending: for each tag not covered by then, its first place that is left."""
    kept, covered = [], set[str]()
    for place, tag in sorted((places[-1], tag) for tag, places in left.items()):
        if tag not in covered:
            kept.append(place)
            covered.update(tags_at[place])
    return kept


def _without(left: Mapping[str, list[int]], kept: Set[int]) -> dict[str, list[int]]:
    """Drop the kept places that come first for a tag, and tags without places."""
    for places in left.values():
        while places and places[-1] in kept:
            places.pop()
    return {tag: places for tag, places in left.items() if places}


def mig(candidates: Candidates, budget: int) -> Trace:
    """Greedy maximisation of the information on a label graph (MIG, Chen et al. 2025).

    A row gives each of its tags (labels) its score divided by its number of tags, and a label passes what it gets on to
    similar labels: with W the similarities, 1 on the diagonal and 0 where they are below `label_similarity`, row i
    gives label k the amount sum_j v_ij W_jk / sum_l W_lk. The information of a selection is the sum over labels of
    (x_k + 1e-6) ** 0.8, x_k being the sum of these amounts. Each step keeps the row with the highest gain, ties by id.
    As in the paper a gain is linear: the amounts times the derivative at the present x.

    This follows the public code (yichengchen24/MIG at 03d1dcb) except for the similarity of two labels. There it is the
    cosine of their names' embeddings by a text encoder, cut at 0.9. Here it is the cosine of their columns in the table
    of rows and tags, n_jk / sqrt(n_j n_k), n being numbers of rows with both labels and with either; this needs no
    second model. Labels of the same meaning that never occur together stay apart.

    Memory: the table of rows and labels and the graph, both sparse.
    """
    order = order_of_ids(candidates.ids)
    scores = candidates.scores[order]
    assert (scores >= 0).all(), "information is not negative"
    amounts = _amounts([candidates.tags[position] for position in order], scores, candidates.settings.label_similarity)
    information = _Information(amounts)
    kept = lazy_greedy(len(order), budget, information.gains_of, information.keep)
    return trace_of(len(order), order[kept])


class _Information:
    """The amounts that each of L labels has received, and the slope of the information there, `[L]` float64."""

    def __init__(self, amounts: sparse.csr_array) -> None:
        self.amounts = amounts
        self.received = np.zeros(amounts.shape[1])
        self.slope = _slope(self.received)

    def gains_of(self, rows: np.ndarray) -> np.ndarray:
        """Amounts times slope: `[B]` float64."""
        gains: np.ndarray = self.amounts[rows] @ self.slope
        return gains

    def keep(self, row: int) -> None:
        """Add the row's amounts."""
        entries = slice(*self.amounts.indptr[row : row + 2])
        labels = self.amounts.indices[entries]
        self.received[labels] += self.amounts.data[entries]
        self.slope[labels] = _slope(self.received[labels])


def _slope(received: np.ndarray) -> np.ndarray:
    return _EXPONENT * (received + _OFFSET) ** (_EXPONENT - 1)


def _amounts(tags: Sequence[Sequence[str]], scores: np.ndarray, label_similarity: float) -> sparse.csr_array:
    """What each row gives to each label, directly and passed on: `[N, L]` float64, labels sorted by name."""
    places = {label: place for place, label in enumerate(sorted({tag for of_row in tags for tag in of_row}))}
    labels = np.array([places[tag] for of_row in tags for tag in of_row], dtype=np.int64)
    counts = np.array([len(of_row) for of_row in tags], dtype=np.int64)
    bounds = np.concatenate([[0], counts.cumsum()])
    shape = (len(tags), len(places))
    has_label = sparse.csr_array((np.ones(len(labels)), labels, bounds), shape=shape)
    own = sparse.csr_array((np.repeat(scores / counts, counts), labels, bounds), shape=shape)
    return (own @ _propagation(has_label, label_similarity)).tocsr()


def _propagation(has_label: sparse.csr_array, label_similarity: float) -> sparse.csr_array:
    """The graph as `[L, L]`: similarities of at least `label_similarity`, each column divided by its sum."""
    together = (has_label.T @ has_label).tocoo()
    num_rows = together.diagonal()
    similarity = together.data / np.sqrt(num_rows[together.row] * num_rows[together.col])
    joined = similarity >= label_similarity
    place = (together.row[joined], together.col[joined])
    graph = sparse.coo_array((similarity[joined], place), shape=together.shape).tocsr()
    return graph @ sparse.diags_array(1 / graph.sum(axis=0))

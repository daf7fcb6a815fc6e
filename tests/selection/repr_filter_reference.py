"""What the tests of the Repr Filter share: a few views of a trace, and unit vectors from exactly rounded sums."""

import math

import numpy as np

from deita_train.selection.repr_filter.repr_filter import repr_filter


def ids_for(num_rows):
    return [f"r{i}" for i in range(num_rows)]


def selected(trace):
    """Positions in rank order."""
    kept = np.flatnonzero(trace.selection_rank >= 0)
    return kept[np.argsort(trace.selection_rank[kept])].tolist()


def unit64(embeddings, center=False):
    """Unit vectors in float64, from exactly rounded sums."""
    rows = np.asarray(embeddings).astype(np.float64)
    if center:
        rows = rows - np.array([math.fsum(column) / len(rows) for column in rows.T])
    return np.array([row / math.sqrt(math.fsum(row * row)) for row in rows])


def permuted(embeddings, ids, scores, permutation, **options):
    """The trace of permuted rows, brought back into the order of the rows before."""
    trace = repr_filter(embeddings[permutation], [ids[i] for i in permutation], scores[permutation], **options)
    back = np.argsort(permutation)
    blockers = trace.blocked_by[back]
    return type(trace)(
        trace.selection_rank[back],
        trace.nearest_similarity[back],
        np.where(blockers >= 0, permutation[blockers], -1),
    )


def assert_same(trace, other):
    """Bit by bit."""
    for name in ("selection_rank", "nearest_similarity", "blocked_by"):
        first, second = getattr(trace, name), getattr(other, name)
        assert first.dtype == second.dtype and first.shape == second.shape
        assert first.tobytes() == second.tobytes(), (name, first, second)

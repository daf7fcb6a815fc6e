"""What the tests of the measures share: drawn pools with a subset, and their unit vectors from exactly rounded sums."""

import numpy as np
from hypothesis import strategies as st
from repr_filter_reference import ids_for, unit64

from deita_train.selection.repr_filter.unit_rows import UnitRows


def measured(embeddings, dtype=np.float32, center=False):
    rows = np.array(embeddings, dtype=dtype)
    return UnitRows.measure(rows, ids_for(len(rows)), center=center)


def cosines(embeddings):
    """Cosine similarities [N, N], each from an exactly rounded sum."""
    unit = unit64(embeddings)
    return np.array([[min(1.0, max(-1.0, float(np.sum(a * b)))) for b in unit] for a in unit])


@st.composite
def pools_with_subset(draw, max_rows=24, min_chosen=1):
    """Clustered rows, some of them copies, float32 or float16, and the positions of some of them in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_rows, dim = draw(st.integers(min_chosen, max_rows)), draw(st.integers(2, 10))
    centres = rng.standard_normal((draw(st.integers(1, 6)), dim))
    rows = centres[rng.integers(len(centres), size=num_rows)]
    rows = rows + draw(st.sampled_from([0.0, 0.01, 0.3, 2.0])) * rng.standard_normal((num_rows, dim))
    embeddings = rows.astype(draw(st.sampled_from([np.float32, np.float16])))
    embeddings[np.abs(embeddings).max(axis=1) < 0.01] = 1
    return embeddings, rng.permutation(num_rows)[: draw(st.integers(min_chosen, num_rows))]

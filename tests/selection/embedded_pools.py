"""Small pools with embeddings for the methods that compare them, and the kept ids of a selection."""

import datasets
import numpy as np
from hypothesis import strategies as st
from select_by import select_by


@st.composite
def embedded(draw, max_rows=25):
    """Ids in no order, embeddings of any length in a few clusters, and quality scores with ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_rows, dim = draw(st.integers(1, max_rows)), draw(st.integers(2, 8))
    centres = rng.standard_normal((draw(st.integers(1, 6)), dim))
    rows = centres[rng.integers(len(centres), size=num_rows)] + draw(st.sampled_from([0.1, 1.0])) * rng.standard_normal(
        (num_rows, dim)
    )
    rows *= rng.uniform(0.1, 10.0, size=(num_rows, 1))
    ids = [f"row-{number}" for number in rng.permutation(num_rows)]
    return (
        ids,
        rows.astype(draw(st.sampled_from([np.float32, np.float16]))),
        rng.integers(1, 7, size=num_rows).astype(float),
    )


def scored(ids, quality):
    """Rows of one turn with a quality score each; None for no score."""
    return datasets.Dataset.from_dict({"id": list(ids), "quality_scores": [[score] for score in quality]})


def kept_ids(method, rows, embeddings, budget, **settings):
    """The ids that a method keeps, by rank."""
    embeddings = np.asarray(embeddings)
    embeddings = embeddings if embeddings.dtype == np.float16 else embeddings.astype(np.float32)
    trace = select_by(method, rows, budget, embeddings, score="quality", **settings)
    kept = np.flatnonzero(trace.selection_rank >= 0)
    return [rows["id"][int(place)] for place in kept[np.argsort(trace.selection_rank[kept])]]


def unit_rows(embeddings, center=False):
    """Unit vectors in float64."""
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows - rows.mean(axis=0) if center else rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def has_directions(embeddings, center):
    """Whether no row is close to zero, after centring if that is asked."""
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows - rows.mean(axis=0) if center else rows
    return bool((np.linalg.norm(rows, axis=1) > 1e-2).all())

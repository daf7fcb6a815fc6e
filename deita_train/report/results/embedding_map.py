"""The rows of a pool in the plane in which their embeddings vary most, each with what the selection made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.data.embeddings import embedded_ids, embeddings_of
from deita_train.data.texts import TextColumn, places_of
from deita_train.report.results.principal_plane import PrincipalPlane
from deita_train.report.statistics import evenly

# Numbers of the sample that the plane is that of: 64 MiB as float32, 16,384 rows of 1,024 dimensions.
SAMPLED_NUMBERS = 2**24
KEPT, REJECTED, OTHER = "kept", "rejected", "other"
# The most rows of each that are drawn: 4,000 dots in all.
MOST_DRAWN = {KEPT: 1200, REJECTED: 800, OTHER: 2000}


@dataclass(frozen=True)
class EmbeddingMap:
    """P drawn rows of a pool, of which M have an embedding.

    Attributes:
        points: `[P, 2]` float.
        shares: of the variance of the embeddings, along each axis.
        fates: `[P]` text: `KEPT`, `REJECTED` (the walk passed over it) or `OTHER`.
        sources: `[P]` text.
        rows: how many rows with an embedding there are of each fate.
        source_rows: how many rows of the whole pool are from each source, the most first.
        sampled: of how many rows the plane is.
        embedded: M.
        not_embedded: rows of the pool without an embedding.
    """

    points: np.ndarray
    shares: tuple[float, float]
    fates: np.ndarray
    sources: np.ndarray
    rows: Mapping[str, int]
    source_rows: Mapping[str, int]
    sampled: int
    embedded: int
    not_embedded: int


def read_embedding_map(select: Path, embed: Path, *, center: bool) -> EmbeddingMap | None:
    """The map of a selection, from a sample of the mapped embeddings.

    Args:
        select: the selection's artefact, which has a trace of every row.
        embed: the artefact with the embeddings of all or some of these rows.
        center: whether the rows are compared less their mean, which here is that of the sample.

    Returns:
        None where fewer than three rows have a direction, all have the same, or there is one dimension.
    """
    trace = datasets.load_from_disk(str(select / "trace"))
    ids = embedded_ids(embed / "data")
    matrix = embeddings_of(embed / "data", ids)
    rng = np.random.default_rng(0)
    sample = _at_random(rng, np.arange(len(matrix)), max(3, SAMPLED_NUMBERS // matrix.shape[1]))
    plane = PrincipalPlane.of(matrix[sample], center=center)
    if plane is None:
        return None
    places = places_of(TextColumn(arrow_column(trace, "id")), ids)
    ranks = numbers_in(arrow_column(trace, "selection_rank"))
    fates = np.where(places < 0, "", _fates(trace, ranks))
    drawn = _drawn(rng, fates, ranks)
    points = plane.points(matrix[places[drawn]])
    shown = np.isfinite(points).all(axis=1)
    sources = arrow_column(trace, "source")
    return EmbeddingMap(
        points=points[shown],
        shares=plane.shares,
        fates=fates[drawn[shown]],
        sources=np.array(sources.take(pa.array(drawn[shown])).to_pylist(), dtype=object),
        rows={fate: int(np.count_nonzero(fates == fate)) for fate in MOST_DRAWN},
        source_rows=_rows_by_source(sources),
        sampled=len(sample),
        embedded=len(matrix),
        not_embedded=int(np.count_nonzero(places < 0)),
    )


def _fates(trace: datasets.Dataset, ranks: np.ndarray) -> np.ndarray:
    """What became of each row, text `[N]`."""
    rejected = np.zeros(len(trace), dtype=bool)
    if "blocked_by" in trace.column_names:
        rejected = arrow_column(trace, "blocked_by").is_valid().to_numpy()
    return np.select([~np.isnan(ranks), rejected], [KEPT, REJECTED], OTHER)


def _drawn(rng: np.random.Generator, fates: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The rows to draw: kept ones evenly by rank, others at random."""
    drawn = []
    for fate, most in MOST_DRAWN.items():
        places = np.flatnonzero(fates == fate)
        drawn.append(evenly(places[np.argsort(ranks[places])], most) if fate == KEPT else _at_random(rng, places, most))
    return np.concatenate(drawn)


def _at_random(rng: np.random.Generator, places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, in order."""
    return places if len(places) <= most else np.sort(rng.choice(places, most, replace=False))


def _rows_by_source(sources: pa.ChunkedArray) -> dict[str, int]:
    counted = {str(entry["values"]): entry["counts"].as_py() for entry in pc.value_counts(sources)}
    return dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0])))

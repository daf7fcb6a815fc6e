"""Sections `scores:` and `embeddings:`, files made elsewhere for the rows of the pool."""

from typing import Any

from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.scoring_sections import EmbeddingFile, ScoreFiles
from deita_train.selection.settings import DIMENSIONS


def add_score_files(builder: Builder, scores: ScoreFiles) -> None:
    """Add the reading of each dimension's file."""
    for dimension in DIMENSIONS:
        file = getattr(scores, dimension)
        if file is not None:
            _refuse_beside(builder, f"score.{dimension}", f"scores.{dimension}", f"scorers.{dimension}")
            where = f"scores.{dimension}"
            _add_file(builder, "scores_file", where, file, {"dimension": dimension}, where)


def add_embedding_file(builder: Builder, embeddings: EmbeddingFile) -> None:
    """Add the reading of the file of embeddings."""
    _refuse_beside(builder, "embed", "embeddings", "embedding")
    _add_file(builder, "embeddings_file", "embeddings", embeddings.file, {}, "embeddings.file")


def _add_file(builder: Builder, kind: str, label: str, file: str, identity: dict[str, Any], where: str) -> None:
    pool = builder.pool(label.partition(".")[0])
    content, location = builder.inputs.file(file, where)
    builder.add(Node(label, kind, {**identity, "file": content}, {"file": location}, {"pool": pool}))


def _refuse_beside(builder: Builder, label: str, given: str, made: str) -> None:
    if label in builder.nodes:
        raise builder.inputs.error(
            given, f"{made}: makes the same for every row of the pool; leave one of the two out."
        )

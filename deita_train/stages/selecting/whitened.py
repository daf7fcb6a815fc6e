"""The embeddings of a pool, whitened where the recipe says so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deita_train.data.embeddings import embedded_ids, embeddings_of
from deita_train.selection.candidates import Queries
from deita_train.selection.repr_filter.unit_rows import UnitRows, centre_of
from deita_train.selection.whitening import Whitening
from deita_train.stages.context import StageContext


@dataclass(frozen=True)
class PoolEmbeddings:
    """The embeddings that a stage reads; the whitening is that of every row of the pool with an embedding."""

    context: StageContext
    whitening: Whitening | None

    @classmethod
    def of(cls, context: StageContext) -> "PoolEmbeddings":
        """Those of the stage's parent `embed`. All ranks whiten alike, as rank 0 found."""
        dimensions = context.identity.get("whiten")
        if dimensions is None:
            return cls(context, None)
        found: list[Whitening | None] = [None]
        if context.rank == 0:
            context.progress.update(0, 1, "steps", "whitening")
            folder = context.parents["embed"] / "data"
            ids = embedded_ids(folder)
            found = [Whitening.of_pool(embeddings_of(folder, ids), ids, dimensions)]
        if context.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0)
        return cls(context, found[0])

    def mean(self) -> np.ndarray:
        """The mean of every embedding of the pool, `[D]` float64, also of rows that cannot be ranked."""
        folder = self.context.parents["embed"] / "data"
        ids = embedded_ids(folder)
        embeddings = embeddings_of(folder, ids)
        mean = centre_of(embeddings, ids)
        if mean is None:
            UnitRows.measure(embeddings, ids)  # refuses the rows that are not finite, by id
        assert mean is not None
        return mean

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """`[N, D]` float32 or float16 in the order of `ids`."""
        return self._rows("embed", ids)

    def queries(self) -> Queries:
        """Those of the stage's parent `target`, whitened as the pool is."""
        ids = embedded_ids(self.context.parents["target"] / "data")
        return Queries(ids, self._rows("target", ids))

    def _rows(self, parent: str, ids: Sequence[str]) -> np.ndarray:
        embeddings = embeddings_of(self.context.parents[parent] / "data", ids)
        return embeddings if self.whitening is None else self.whitening.apply(embeddings, ids)

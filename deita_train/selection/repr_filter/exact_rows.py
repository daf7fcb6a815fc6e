"""The rows of a pool as the Repr Filter reads them: all checked once, exact cosines of any pairs in float64."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.scratch import Scratch
from deita_train.selection.repr_filter.unit_rows import (
    centre_of,
    check_shape,
    refuse_without_direction,
    shared_tensor,
    undirected_rows,
)

# Pairs of rows whose cosines are taken at once: bounds the memory, changes no bit.
PAIRS_AT_ONCE = 512


@dataclass(frozen=True)
class ExactRows:
    """Embeddings ``[N, D]`` of which every row has a direction, and exact cosines between them.

    The exact cosine of two rows a and b, in the sense of "one value, whatever else happens": both are converted to
    float64 (and centred); the D products are added up in the fixed order of numpy's row sum, and so are the D squares
    of each; the sum of the products is divided by sqrt(sum of a's squares * sum of b's squares) and clipped to [-1, 1].
    It depends on the two rows and the mean alone, is the same for (a, b) and (b, a), and is 1 for equal rows.

    Attributes:
        embeddings: ``[N, D]`` float32 or float16, ``np.memmap`` allowed.
        mean: ``[D]`` float64 to be subtracted from every row, or None.
        squares: ``[N]`` float64, sums of squares of the rows that ``read`` has read, nan for the others.
    """

    embeddings: np.ndarray
    mean: np.ndarray | None
    squares: np.ndarray
    scratch: Scratch = field(default_factory=Scratch)

    @classmethod
    def check(
        cls,
        embeddings: np.ndarray,
        ids: Sequence[str],
        *,
        center: bool,
        order: np.ndarray,
        group: Group,
        mean: np.ndarray | None = None,
    ) -> "ExactRows":
        """Read every row once (twice if centred), at the speed of the memory, and refuse those without a direction.

        The ranks of ``group`` check a share of the rows each and refuse together.

        Args:
            embeddings: ``[N, D]`` float32 or float16.
            ids: N row ids, for the message.
            center: subtract the mean.
            order: positions ``[N]`` along which the mean is summed.
            group: the processes that call this together.
            mean: ``[D]`` float64, as for ``UnitRows.measure``.

        Raises:
            UserError: a row is not finite, or its norm is below 1e-12, after centring if that is asked.
        """
        check_shape(embeddings, ids)
        mean = centre_of(embeddings, ids, order, mean) if center else None
        share = -(-len(ids) // group.size)
        first = min(group.rank * share, len(ids))
        part = range(first, min(first + share, len(ids)))
        refused = np.zeros(share, dtype=np.uint8)
        refused[: len(part)] = undirected_rows(embeddings, mean, part)
        refuse_without_direction(np.flatnonzero(group.gather(refused).ravel()[: len(ids)]), mean, ids)
        return cls(embeddings, mean, np.full(len(ids), np.nan))

    def read(self, positions: np.ndarray) -> torch.Tensor:
        """The rows at ``positions`` as unit vectors ``[B, D]`` float32, good to float32's rounding.

        They are valid until the next call.
        """
        vectors = self._vectors(positions, "first")
        squares = self.scratch.take("squares", vectors.shape, torch.float64)
        self.squares[positions] = torch.mul(vectors, vectors, out=squares).numpy().sum(axis=1)
        unit = self.scratch.take("unit", vectors.shape, torch.float32)
        return unit.copy_(vectors.div_(torch.from_numpy(self.squares[positions]).sqrt_()[:, None]))

    def cosines(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Exact cosines ``[P]`` float64 of the rows at ``first`` with those at ``second``, both read before."""
        found = np.empty(len(first), dtype=np.float64)
        for start in range(0, len(first), PAIRS_AT_ONCE):
            pairs = slice(start, start + PAIRS_AT_ONCE)
            a, b = first[pairs], second[pairs]
            products = self._vectors(a, "first").mul_(self._vectors(b, "second")).numpy()
            found[pairs] = products.sum(axis=1) / np.sqrt(self.squares[a] * self.squares[b])
        assert not np.isnan(found).any(), "a row was compared before it was read"
        return found.clip(-1, 1)

    def _vectors(self, positions: np.ndarray, name: str) -> torch.Tensor:
        """The rows at ``positions`` ``[B, D]`` in float64, row by row in memory, less the mean if there is one.

        Torch's threads convert and multiply, element by element; numpy adds up, in an order that depends on D alone.
        The result is valid until the next call with this name.
        """
        shape = (len(positions), self.embeddings.shape[1])
        table = shared_tensor(self.embeddings)
        stored = self.scratch.take("stored", shape, table.dtype)
        torch.index_select(table, 0, torch.from_numpy(positions), out=stored)
        vectors = self.scratch.take(name, shape, torch.float64).copy_(stored)
        return vectors if self.mean is None else vectors.sub_(torch.from_numpy(self.mean))

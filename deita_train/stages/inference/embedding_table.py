"""Shared by the stages that embed: the rows to embed, the stored dtype, and the table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import datasets
import numpy as np
import pyarrow as pa
import torch

from deita_train.data.embeddings import write_embeddings
from deita_train.data.no_rows import no_row_left
from deita_train.errors import UserError
from deita_train.inference.batches import BatchPlan, read_plan
from deita_train.inference.row_file import RowFile
from deita_train.inference.shards import Columns
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, ROWS, PassResult, rows_as_text, truncated_rows
from deita_train.stages.inference.row_reuse import Stored, input_hashes, join_reused, plan_missing
from deita_train.stages.inference.walk_order import find_walk

VECTORS = "embedding"
STORED = Stored("input_hash", VECTORS)


def pool_rows(context: StageContext) -> datasets.Dataset:
    """The rows to embed."""
    return datasets.load_from_disk(str(context.parents["pool"] / "data"))


def plan_inputs(
    context: StageContext,
    truncated: int,
    refused: Mapping[int, str] = MappingProxyType({}),
    as_text: int | None = None,
) -> None:
    """Plan batches over those of the rows in `ROWS` that were not embedded before.

    Rows of the pool that are `refused`, by position, have no inputs and will have no embedding; `as_text` is how many
    were written as text, None where no chat template writes them.
    """
    inputs = RowFile(context.prepared_dir / ROWS)
    if not len(inputs):
        raise no_row_left("is left to embed", Counter(refused.values()))
    facts = {"truncated": truncated, "refused": {str(position): reason for position, reason in refused.items()}}
    facts |= {} if as_text is None else {"as_text": as_text}
    walk = find_walk(context, refused)
    if walk is None:
        plan_missing(context, inputs, STORED, facts)
    else:
        plan_missing(context, inputs, STORED, {**facts, **walk.facts}, walk.groups(len(inputs)))


@dataclass(frozen=True)
class Inputs:
    """The token ids of every row, and the plan, whose positions count only the missing rows."""

    tokens: RowFile
    plan: BatchPlan

    @property
    def refused(self) -> dict[int, str]:
        """The rows of the pool without inputs, by position, with the reason."""
        return {int(position): reason for position, reason in self.plan.facts["refused"].items()}

    @classmethod
    def read(cls, context: StageContext) -> "Inputs":
        """What :func:`plan_inputs` left."""
        return cls(RowFile(context.prepared_dir / ROWS), read_plan(context.prepared_dir / PLAN))

    def rows(self, positions: Sequence[int]) -> list[int]:
        """The numbers of the rows at positions of the plan."""
        rows: list[int] = self.plan.facts["missing"][list(positions)].tolist()
        return rows


def as_stored(context: StageContext, vectors: torch.Tensor, rows: Sequence[int]) -> Columns:
    """Vectors [B, D] in the recipe's storage dtype; `rows` are the numbers of their rows among those embedded.

    Raises:
        UserError: a number overflows float16.
    """
    values = vectors.float().cpu().numpy()
    with np.errstate(over="ignore"):
        stored = values.astype(context.identity.get("storage", "float32"))
    lost = np.flatnonzero((np.isinf(stored) & np.isfinite(values)).any(axis=1))
    if len(lost):
        row_id = ids_of_inputs(context, Inputs.read(context))[rows[int(lost[0])]].as_py()
        raise UserError(
            f"{context.label}: row {row_id!r} has {np.abs(values[lost[0]]).max():,.0f} in its embedding, and float16 "
            "holds at most 65,504. Set embedding.storage: float32."
        )
    return {VECTORS: stored}


def ids_of_inputs(context: StageContext, inputs: Inputs) -> pa.ChunkedArray:
    """The ids of the rows that have inputs, in the pool's order."""
    ids = pool_rows(context).data.column("id")
    embedded = np.ones(len(ids), dtype=bool)
    embedded[list(inputs.refused)] = False
    return ids.filter(pa.array(embedded))


def leave_embeddings(
    context: StageContext, inputs: Inputs, result: PassResult, max_length: int | None, device: str
) -> StageResult:
    """Write the table with the vectors of all rows; the matrix stays memory-mapped until then."""
    num_rows = len(inputs.tokens)
    matrix, reused = join_reused(context, inputs.plan, result.columns.get(VECTORS), num_rows)
    hashes = {STORED.hashes: input_hashes(inputs.tokens)}
    write_embeddings(context.data_dir, ids_of_inputs(context, inputs), matrix, hashes)
    metrics = {
        "rows": num_rows,
        "dimensions": matrix.shape[1],
        "max_length": max_length,
        "truncated": truncated_rows(context),
        **rows_as_text(context),
        **reused,
        **result.metrics,
    }
    drops = dict(Counter(inputs.refused.values()))
    return StageResult(num_rows + sum(drops.values()), num_rows, drops, metrics, device)

"""Stage `embed`: the last hidden state at each conversation's last token [paper 2.5], or a mean over its tokens."""

from collections.abc import Sequence

from deita_train.inference.forward import (
    last_hidden_states,
    mean_hidden_states,
    pad_batch,
    weighted_mean_hidden_states,
)
from deita_train.inference.shards import Columns
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import ROWS, load_pass_model, start_ranks
from deita_train.stages.inference.embedding_table import (
    Inputs,
    as_stored,
    plan_inputs,
    pool_rows,
)
from deita_train.stages.inference.rendered_table import rendered_rows
from deita_train.stages.inference.walked_embedding import embed_rows
from deita_train.stages.row_limit import stage_limit

_POOLINGS = {
    "last_token": last_hidden_states,
    "mean": mean_hidden_states,
    "weighted_mean": weighted_mean_hidden_states,
}


def prepare(context: StageContext) -> None:
    """Render every conversation once, cut on the right, and plan batches over those not embedded before."""
    rendered = rendered_rows(context, pool_rows(context), ROWS, labelled=False)
    plan_inputs(context, rendered.truncated, rendered.refused, rendered.as_text)


def run(context: StageContext) -> StageResult | None:
    """Embed this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    inputs = Inputs.read(context)
    trunk = load_pass_model(context, device, head=False)
    pooled = _POOLINGS[context.identity.get("pooling", "last_token")]

    def compute(positions: Sequence[int]) -> Columns:
        rows = inputs.rows(positions)
        return as_stored(context, pooled(trunk, pad_batch(inputs.tokens.rows(rows), device)), rows)

    return embed_rows(context, inputs, trunk, compute, stage_limit(context).tokens, device)

"""Stage `embed`: the last layer's hidden state at each conversation's last token [paper 2.5]."""

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.inference.forward import last_hidden_states, load_model, pad_batch
from deita_train.inference.passes import Columns, collect, read_plan
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.models import model_path
from deita_train.stages.passes import PLAN, ROWS, render_rows, run_pass, start_ranks


def prepare(context: StageContext) -> None:
    """Render every conversation once, cut on the right, and plan the batches."""
    render_rows(context, datasets.load_from_disk(str(context.parents["pool"] / "data")))


def run(context: StageContext) -> StageResult | None:
    """Embed this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    rows = pq.read_table(context.prepared_dir / ROWS)["input_ids"].to_pylist()
    trunk = load_model(str(model_path(context)), context.config["dtype"], device, head=False)

    def compute(positions: Sequence[int]) -> Columns:
        hidden = last_hidden_states(trunk, pad_batch([rows[position] for position in positions], device))
        return {"embedding": hidden.float().cpu().numpy()}

    if not run_pass(context, compute):
        return None
    embeddings = collect(context.work_dir / "shards", len(rows))["embedding"]
    _write(context, embeddings)
    plan = read_plan(context.prepared_dir / PLAN)
    metrics = {
        "rows": len(rows),
        "dimensions": embeddings.shape[1],
        "truncated": plan["truncated"],
        "tokens": plan["tokens"],
        "real_token_share": 1 - plan["padding_share"],
    }
    return StageResult(len(rows), len(rows), {}, metrics, device.type)


def _write(context: StageContext, embeddings: np.ndarray) -> None:
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    flat = pa.array(embeddings.astype(np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    table = pa.table({"id": pa.array(list(pool["id"])), "embedding": column})
    datasets.Dataset(table).save_to_disk(str(context.data_dir))

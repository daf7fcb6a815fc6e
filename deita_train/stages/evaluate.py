"""Stage `evaluate`: loss per assistant token on held-out conversations."""

import math
from collections.abc import Sequence

import datasets
import pyarrow.parquet as pq
import torch

from deita_train.data.rendering import IGNORED
from deita_train.durable import read_json
from deita_train.errors import UserError
from deita_train.inference.forward import check_plain_head, load_model, pad_batch, summed_loss
from deita_train.inference.passes import Columns, collect, read_plan
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.models import model_path
from deita_train.stages.passes import PLAN, ROWS, render_rows, run_pass, start_ranks


def prepare(context: StageContext) -> None:
    """Render every held-out conversation once, and plan the batches."""
    render_rows(context, datasets.load_from_disk(str(context.parents["data"] / "data")))


def run(context: StageContext) -> StageResult | None:
    """Sum the losses of this rank's batches; rank 0 divides once by the number of assistant tokens."""
    device = start_ranks(context)
    table = pq.read_table(context.prepared_dir / ROWS)
    rows, labels = table["input_ids"].to_pylist(), table["labels"].to_pylist()
    model = load_model(str(model_path(context)), context.config["dtype"], device, head=True)

    check_plain_head(model, rows[0], device)

    def compute(positions: Sequence[int]) -> Columns:
        batch = pad_batch([rows[position] for position in positions], device)
        wanted = torch.full_like(batch.input_ids, IGNORED)
        for index, position in enumerate(positions):
            wanted[index, : len(labels[position])] = torch.tensor(labels[position], device=device)
        loss, tokens = summed_loss(model, batch, wanted)
        return {"loss": loss, "tokens": tokens}

    if not run_pass(context, compute):
        return None
    results = collect(context.work_dir / "shards", len(rows))
    heldout = datasets.load_from_disk(str(context.parents["data"] / "data"))
    values = {"id": list(heldout["id"]), "loss": results["loss"].tolist(), "tokens": results["tokens"].tolist()}
    datasets.Dataset.from_dict(values).save_to_disk(str(context.data_dir))
    tokens = int(results["tokens"].sum())
    if tokens == 0:
        raise UserError("the held-out rows have no assistant token within max_length; nothing can be measured.")
    loss = math.fsum(results["loss"].tolist()) / tokens
    plan = read_plan(context.prepared_dir / PLAN)
    metrics = {
        "heldout": {"rows": len(rows), "tokens": tokens, "loss_per_token": loss, "perplexity": math.exp(loss)},
        "truncated": plan["truncated"],
        "real_token_share": 1 - plan["padding_share"],
    }
    if "before" in context.parents:
        metrics["before"] = read_json(context.parents["before"] / "metrics.json")["heldout"]
    return StageResult(len(rows), len(rows), {}, metrics, device.type)

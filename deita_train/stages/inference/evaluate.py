"""Stage `evaluate`: loss per assistant token on held-out conversations, and answers to some of their prompts."""

import math
from collections import Counter

import datasets

from deita_train.inference.batches import read_plan
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import (
    PLAN,
    ROWS,
    load_pass_model,
    losses_under,
    prepare_rows,
    start_ranks,
)
from deita_train.stages.inference.rendered_table import rendered_rows
from deita_train.stages.inference.sample_answers import keep_prompts, sample_answers
from deita_train.store.atomic_io import read_json


def prepare(context: StageContext) -> None:
    """Render every held-out conversation once, and plan the batches."""
    heldout = _heldout(context)
    rendered = rendered_rows(context, heldout, ROWS)
    rendered.check_measurable()
    refused = dict(Counter(rendered.refused.values()))
    facts = {"refused": refused, "rows": rendered.positions, "as_text": rendered.as_text}
    prepare_rows(context, rendered.truncated, facts)
    keep_prompts(context, heldout, rendered)


def run(context: StageContext) -> StageResult | None:
    """Sum the losses of this rank's batches; rank 0 divides once by the number of assistant tokens, and answers."""
    model = load_pass_model(context, start_ranks(context), head=True)
    losses = losses_under(context, model)
    if losses is None:
        return None
    facts = read_plan(context.prepared_dir / PLAN).facts
    rows, refused = facts["rows"], facts["refused"]
    values = {
        "id": list(_heldout(context).select(rows)["id"]),
        "loss": losses.sums.tolist(),
        "tokens": losses.counts.tolist(),
    }
    datasets.Dataset.from_dict(values).save_to_disk(str(context.data_dir))
    tokens = int(losses.counts.sum())
    assert tokens > 0, "a held-out row with an assistant token was prepared"
    loss = math.fsum(losses.sums.tolist()) / tokens
    metrics = {
        "heldout": {"rows": len(rows), "tokens": tokens, "loss_per_token": loss, "perplexity": math.exp(loss)},
        **losses.metrics,
        "answers": sample_answers(context, model),
    }
    if "before" in context.parents:
        metrics["before"] = read_json(context.parents["before"] / "metrics.json")["heldout"]
    return StageResult(len(rows) + sum(refused.values()), len(rows), refused, metrics, losses.device)


def _heldout(context: StageContext) -> datasets.Dataset:
    return datasets.load_from_disk(str(context.parents["data"] / "data"))

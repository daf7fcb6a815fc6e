"""Stage `log_probs`: log-probabilities of both answers of every preference pair under one model.

Used as DPO's reference, and for evaluation: how often the chosen answer is the likelier one.
"""

from collections import Counter
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.rendering import IGNORED, RenderedPair
from deita_train.data.row_table import as_dataset
from deita_train.data.texts import TextColumn
from deita_train.inference.batches import read_plan
from deita_train.inference.row_file import IDS, IDS_TYPE, LABELS, RowFile, RowWriter
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, ROWS, prepare_rows, token_losses
from deita_train.stages.inference.rendered_table import check_measurable
from deita_train.stages.inference.shared_rows import shared_rows
from deita_train.stages.intake.pairs import pairs_tokenizer, rendered_pairs
from deita_train.stages.refusals import Refusals
from deita_train.stages.row_limit import told_limit
from deita_train.store.atomic_io import read_json
from deita_train.training.rows import pair_silence

Columns = dict[str, np.ndarray]
_COLUMNS = {"id": pa.string(), IDS: IDS_TYPE, LABELS: IDS_TYPE}


def prepare(context: StageContext) -> None:
    """Render every pair once, as two rows, and plan the batches."""
    refusals = Refusals.of(context)
    about = {"rows": "pairs", "limit": told_limit(context).tokens, "as_text": refusals.writes_text}
    facts = shared_rows(context, pairs_tokenizer(context), about, [ROWS], lambda: _written(context, refusals))
    num_pairs = len(RowFile(context.prepared_dir / ROWS)) // 2
    refusals.take_over(facts["refusals"], num_pairs + sum(facts["refusals"]["counts"].values()))
    silent = Counter(facts["silent"])
    check_measurable(refusals.counts + silent, num_pairs - silent.total())
    prepare_rows(context, facts["truncated"], {"refused": dict(refusals.counts), "as_text": refusals.as_text})


def _written(context: StageContext, refusals: Refusals) -> dict[str, Any]:
    """Write the rows; what is known of them, in JSON."""
    silent, truncated = Counter[str](), 0
    with RowWriter(context.prepared_dir / ROWS, _COLUMNS) as writer:
        for row_id, pair in rendered_pairs(context, refusals):
            for answer in (pair.chosen_ids, pair.rejected_ids):
                writer.append(id=row_id, **_sequence(pair, answer))
            truncated += pair.truncated
            reason = pair_silence(pair)
            silent.update([] if reason is None else [reason])
    return {"silent": silent, "truncated": truncated, "refusals": refusals.told()}


def run(context: StageContext) -> StageResult | None:
    """Sum the log-probabilities of each answer's tokens; rank 0 joins the answers of each pair."""
    losses = token_losses(context)
    if losses is None:
        return None
    pairs = _ids(context)
    refused = read_plan(context.prepared_dir / PLAN).facts["refused"]
    columns = {
        "chosen_log_prob": 0.0 - losses.sums[0::2],
        "rejected_log_prob": 0.0 - losses.sums[1::2],
        "chosen_tokens": losses.counts[0::2],
        "rejected_tokens": losses.counts[1::2],
    }
    table = pa.table({"id": pairs.column, **{name: pa.array(values) for name, values in columns.items()}})
    as_dataset(table).save_to_disk(str(context.data_dir))
    metrics = {**_metrics(context, columns), **losses.metrics}
    return StageResult(len(pairs) + sum(refused.values()), len(pairs), refused, metrics, losses.device)


def _ids(context: StageContext) -> TextColumn:
    """The pairs' ids; each pair has two rows."""
    ids = RowFile(context.prepared_dir / ROWS).column("id")
    return TextColumn(ids.take(pa.array(np.arange(0, len(ids), 2))))


def _sequence(pair: RenderedPair, answer: list[int]) -> dict[str, list[int]]:
    return {IDS: pair.prompt_ids + answer, LABELS: [IGNORED] * len(pair.prompt_ids) + answer}


def _metrics(context: StageContext, columns: Columns) -> dict[str, Any]:
    usable = (columns["chosen_tokens"] > 0) & (columns["rejected_tokens"] > 0)
    assert usable.any(), "a pair with tokens of both answers was prepared"
    margins = (columns["chosen_log_prob"] - columns["rejected_log_prob"])[usable]
    metrics = {
        "pairs": {
            "rows": int(usable.sum()),
            "accuracy": float((margins > 0).mean()),
            "margin": float(margins.mean()),
            "chosen_tokens": int(columns["chosen_tokens"].sum()),
            "rejected_tokens": int(columns["rejected_tokens"].sum()),
        },
        "without_answer": int((~usable).sum()),
    }
    if "before" in context.parents:
        metrics["before"] = read_json(context.parents["before"] / "metrics.json")["pairs"]
    if "beta" in context.identity:
        metrics["rewards"] = _rewards(context, margins, usable)
    return metrics


def _rewards(context: StageContext, margins: np.ndarray, usable: np.ndarray) -> dict[str, float]:
    """DPO's implicit reward: beta times how much likelier an answer has become than under the model before."""
    before = datasets.load_from_disk(str(context.parents["before"] / "data"))
    assert TextColumn(arrow_column(before, "id")) == _ids(context), "the pairs before are others"
    chosen, rejected = (arrow_column(before, f"{name}_log_prob").to_numpy() for name in ("chosen", "rejected"))
    margins_before = (chosen - rejected)[usable]
    rewards = context.identity["beta"] * (margins - margins_before)
    return {"accuracy": float((rewards > 0).mean()), "margin": float(rewards.mean())}

"""Stage `score`: one scorer over every turn of the pool [paper 2.3, 2.4].

Turns are paired by role: each user turn with the assistant's answer that follows it. A leading system or assistant
message is not scored; a trailing user turn has a complexity and a null quality.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.batches import padding_share, plan_batches
from deita_train.inference.forward import check_plain_head, last_logits, load_model, pad_batch
from deita_train.inference.passes import Columns, collect, read_plan, write_plan
from deita_train.scoring.digits import digit_expectation, digit_mass
from deita_train.scoring.prompts import PromptEncoder
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.models import model_path
from deita_train.stages.passes import PLAN, run_pass, start_ranks
from deita_train.stages.rows import turn_prompts

_TURNS = "turns.parquet"
_HISTOGRAM_EDGES = [1 + 0.25 * step for step in range(21)]


def prepare(context: StageContext) -> None:
    """Encode every prompt once, and plan the batches."""
    tokenizer = load_tokenizer(str(model_path(context)))
    encoder = PromptEncoder(tokenizer, context.config["dimension"], context.config["max_length"])
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    turns = _encode(pool, encoder, context)
    _check_share(context, Counter(turn["reason"] for turn in turns if turn["reason"] is not None), len(turns))
    table = pa.Table.from_pylist(turns, schema=_SCHEMA)
    pq.write_table(table, context.prepared_dir / _TURNS)
    lengths = [len(turn["input_ids"]) for turn in turns if turn["input_ids"] is not None]
    batches = plan_batches(lengths, context.settings["max_batch_tokens"])
    facts = {"digit_ids": encoder.digit_ids, "tokens": sum(lengths), "padding_share": padding_share(lengths, batches)}
    write_plan(context.prepared_dir / PLAN, batches, facts)


def run(context: StageContext) -> StageResult | None:
    """Score this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    table = pq.read_table(context.prepared_dir / _TURNS)
    prompts = [ids for ids in table["input_ids"].to_pylist() if ids is not None]
    digit_ids = read_plan(context.prepared_dir / PLAN)["digit_ids"]
    model = load_model(str(model_path(context)), context.config["dtype"], device, head=True)
    if prompts:
        check_plain_head(model, prompts[0], device)

    def compute(positions: Sequence[int]) -> Columns:
        logits = last_logits(model, pad_batch([prompts[position] for position in positions], device))
        score, mass = digit_expectation(logits, digit_ids), digit_mass(logits, digit_ids)
        return {"score": score.cpu().numpy(), "mass": mass.cpu().numpy()}

    if not run_pass(context, compute):
        return None
    results = collect(context.work_dir / "shards", len(prompts))
    return _finish(context, table, results, str(device.type))


def _encode(pool: datasets.Dataset, encoder: PromptEncoder, context: StageContext) -> list[dict[str, Any]]:
    """One entry per user turn; `input_ids` null and a reason where the turn cannot be scored."""
    turns = []
    for number, row in enumerate(pool):
        for turn in turn_prompts(encoder, context.config["dimension"], row["messages"]):
            ids, shortened = (turn.prompt.input_ids, turn.prompt.shortened) if turn.prompt else (None, False)
            turns.append({"row": number, "input_ids": ids, "shortened": shortened, "reason": turn.reason})
        context.progress.update(number + 1, len(pool), "rows encoded")
    return turns


_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("shortened", pa.bool_()),
        ("reason", pa.string()),
    ]
)


def _finish(context: StageContext, table: pa.Table, results: dict[str, np.ndarray], device: str) -> StageResult:
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    reasons = table["reason"].to_pylist()
    scores, masses = results.get("score", np.empty(0)), results.get("mass", np.empty(0))
    per_row: list[list[float | None]] = [[] for _ in range(len(pool))]
    shortened = [False] * len(pool)
    position = 0
    for row, reason, cut in zip(table["row"].to_pylist(), reasons, table["shortened"].to_pylist(), strict=True):
        if reason is None:
            per_row[row].append(float(scores[position]))
            position += 1
        else:
            per_row[row].append(None)
        shortened[row] |= cut
    nulls = Counter(reason for reason in reasons if reason is not None)
    column = f"{context.config['dimension']}_scores"
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            column: datasets.List(datasets.Value("float32")),
            "shortened": datasets.Value("bool"),
        }
    )
    values = {"id": list(pool["id"]), column: per_row, "shortened": shortened}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(context.data_dir))
    return StageResult(len(pool), len(pool), {}, _metrics(context, scores, masses, nulls, shortened), device)


def _check_share(context: StageContext, nulls: Counter[str], num_turns: int) -> None:
    """A trailing user turn has no quality by its nature; any other null counts against the stated share."""
    failed = sum(count for reason, count in nulls.items() if reason != "no_response")
    limit = context.settings["max_unscored_share"]
    if failed > limit * num_turns:
        raise UserError(
            f"{failed} of {num_turns} turns cannot be scored ({dict(nulls)}), above the share {limit} of "
            f"scorers.{context.config['dimension']}.max_unscored_share. Raise max_length, or the share."
        )


def _metrics(
    context: StageContext, scores: np.ndarray, masses: np.ndarray, nulls: Counter[str], shortened: list[bool]
) -> dict[str, Any]:
    plan = read_plan(context.prepared_dir / PLAN)
    counts, edges = np.histogram(scores, bins=_HISTOGRAM_EDGES)
    return {
        "dimension": context.config["dimension"],
        "rows": len(shortened),
        "turns": len(scores) + sum(nulls.values()),
        "scored": len(scores),
        "nulls": dict(nulls),
        "shortened": sum(shortened),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "mean": float(scores.mean()) if len(scores) else None,
        "digit_mass_mean": float(masses.mean()) if len(masses) else None,
        "tokens": plan["tokens"],
        "real_token_share": 1 - plan["padding_share"],
    }

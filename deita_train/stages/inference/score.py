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
import torch
from transformers import PreTrainedModel

from deita_train.data.no_rows import no_row_left
from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.batches import BatchPlan, plan_batches, read_plan
from deita_train.inference.forward import (
    check_logits,
    head_logits,
    last_hidden_states,
    last_logits,
    pad_batch,
)
from deita_train.inference.shards import Columns
from deita_train.scoring.digits import digit_expectation, digit_mass
from deita_train.scoring.prompts import PromptEncoder
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, PassResult, load_pass_model, log, run_pass, start_ranks
from deita_train.stages.inference.row_reuse import Stored, input_hash, join_reused, plan_missing
from deita_train.stages.row_limit import told_limit
from deita_train.stages.rows import scoring_encoder, turn_prompts
from deita_train.stages.stage_model import model_path, trusts_code

_TURNS = "turns.parquet"
_HISTOGRAM_EDGES = [1 + 0.25 * step for step in range(21)]
# The probability on the digits needs the whole output head, so it is read only on every tenth batch.
_SAMPLED_BATCHES = 10
# Before hours of scoring, a few turns of medium length show whether the model answers with digits at all.
_TRIED_TURNS = 16
_SUSPECTED_BELOW = 0.5


def prepare(context: StageContext) -> None:
    """Encode every prompt once, and plan batches over those not scored before."""
    model = model_path(context)
    max_length = told_limit(context).tokens
    assert max_length is not None, "a scorer has a limit"
    tokenizer = load_tokenizer(str(model), trust_code=trusts_code(context.identity))
    encoder = scoring_encoder(tokenizer, context.identity, max_length)
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    turns = _encode(pool, encoder, context)
    _check_share(context, Counter(turn["reason"] for turn in turns if turn["reason"] is not None), len(turns))
    table = pa.Table.from_pylist(turns, schema=_SCHEMA)
    pq.write_table(table, context.prepared_dir / _TURNS)
    prompts = [turn["input_ids"] for turn in turns if turn["input_ids"] is not None]
    if not prompts:
        raise no_row_left("can be scored", Counter(turn["reason"] for turn in turns), unit="turns")
    stored = Stored("input_hashes", _column(context))
    plan_missing(context, prompts, stored, {"digit_ids": encoder.digit_ids, "max_length": max_length})


def run(context: StageContext) -> StageResult | None:
    """Score this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    table = pq.read_table(context.prepared_dir / _TURNS)
    prompts = _prompts(table)
    plan = read_plan(context.prepared_dir / PLAN)
    missing = [prompts[item] for item in plan.facts["missing"]]
    model = load_pass_model(context, device, head=True)
    check_logits(model, prompts[0], device)
    # Even if nothing is missing: the limit may differ from that of the reused scores.
    tried = _try_digits(context, model, missing or prompts, plan)
    digit_ids, sampled = plan.facts["digit_ids"], _sampled(plan)

    def compute(positions: Sequence[int]) -> Columns:
        hidden = last_hidden_states(model.base_model, pad_batch([missing[position] for position in positions], device))
        score = digit_expectation(head_logits(model, hidden, digit_ids))
        mass = torch.full_like(score, torch.nan)
        if positions[0] in sampled:
            mass = digit_mass(head_logits(model, hidden), digit_ids)
        return {"score": score.cpu().numpy(), "mass": mass.cpu().numpy()}

    result = run_pass(context, model, compute, ("score", "mass"))
    return None if result is None else _finish(context, table, result, tried, device.type)


def _sampled(plan: BatchPlan) -> set[int]:
    """The positions in every tenth batch by number, the first included."""
    return {position for batch in plan.batches[::_SAMPLED_BATCHES] for position in batch}


def _try_digits(
    context: StageContext, model: PreTrainedModel, prompts: Sequence[Sequence[int]], plan: BatchPlan
) -> np.ndarray:
    """The probability on the digits for up to 16 turns, float32 [<= 16]."""
    batches = plan.batches or plan_batches([len(ids) for ids in prompts], plan.max_batch_tokens)
    positions = batches[len(batches) // 2][:_TRIED_TURNS]
    logits = last_logits(model, pad_batch([prompts[position] for position in positions], model.device))
    masses: np.ndarray = digit_mass(logits, plan.facts["digit_ids"]).cpu().numpy()
    _check_mass(context, masses)
    return masses


def _check_mass(context: StageContext, masses: np.ndarray) -> None:
    """Refuse a model that does not answer with a digit; warn in the log if it rarely does."""
    mean, least = float(masses.mean()), context.runtime["min_digit_mass"]
    where = f"scorers.{context.identity['dimension']}"
    found = (
        f"{context.label}: the model puts {mean:.1%} of its probability on the digits 1 to 6 (mean over {len(masses)} "
        "turns), where a trained scorer puts nearly all of it"
    )
    if mean < least:
        raise UserError(
            f"{found}. This looks like the wrong model, and its scores would be noise. Check {where}: it needs a model "
            f"trained to answer this dimension's prompt with a digit, with its own tokenizer. To use the scores "
            f"anyway, lower {where}.min_digit_mass (now {least})."
        )
    if mean < _SUSPECTED_BELOW:
        log(f"{found}. This looks like the wrong model: check {where}.")


def _encode(pool: datasets.Dataset, encoder: PromptEncoder, context: StageContext) -> list[dict[str, Any]]:
    """One entry per user turn; `input_ids` is None, with a reason, if the turn cannot be scored."""
    turns = []
    for number, row in enumerate(pool):
        for turn in turn_prompts(encoder, context.identity["dimension"], row["messages"]):
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


def _prompts(table: pa.Table) -> list[list[int]]:
    """The prompts of all scorable turns, in order."""
    return [ids for ids in table["input_ids"].to_pylist() if ids is not None]


def _column(context: StageContext) -> str:
    return f"{context.identity['dimension']}_scores"


def _finish(context: StageContext, table: pa.Table, result: PassResult, tried: np.ndarray, device: str) -> StageResult:
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    prompts = _prompts(table)
    plan = read_plan(context.prepared_dir / PLAN)
    scores, reused = join_reused(context, plan, result.columns.get("score"), len(prompts))
    masses = result.columns.get("mass", tried)
    masses = masses[~np.isnan(masses)]
    if len(masses):
        _check_mass(context, masses)
    rows = table["row"].to_pylist()
    shortened = [False] * len(pool)
    for row, cut in zip(rows, table["shortened"].to_pylist(), strict=True):
        shortened[row] |= cut
    reasons = table["reason"].to_pylist()
    per_row = _by_row(len(pool), rows, reasons, scores.tolist())
    hashes = _by_row(len(pool), rows, reasons, [input_hash(ids) for ids in prompts])
    of_row: list[list[str | None]] = [[] for _ in range(len(pool))]
    for row, reason in zip(rows, reasons, strict=True):
        of_row[row].append(reason)
    _write(
        context,
        {
            "id": list(pool["id"]),
            _column(context): per_row,
            "reasons": of_row,
            "input_hashes": hashes,
            "shortened": shortened,
        },
    )
    nulls = Counter(reason for reason in reasons if reason is not None)
    metrics = {**_metrics(context, scores, masses, nulls, shortened), **reused, **result.metrics}
    return StageResult(len(pool), len(pool), {}, metrics, device)


def _by_row(
    num_rows: int, rows: Sequence[int], reasons: Sequence[str | None], values: Sequence[Any]
) -> list[list[Any]]:
    """The values of the scored turns as one list per row; None for turns with a reason."""
    per_row: list[list[Any]] = [[] for _ in range(num_rows)]
    left = iter(values)
    for row, reason in zip(rows, reasons, strict=True):
        per_row[row].append(next(left) if reason is None else None)
    return per_row


def _write(context: StageContext, columns: dict[str, list[Any]]) -> None:
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            _column(context): datasets.List(datasets.Value("float32")),
            "reasons": datasets.List(datasets.Value("string")),
            "input_hashes": datasets.List(datasets.Value("string")),
            "shortened": datasets.Value("bool"),
        }
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(context.data_dir))


def _check_share(context: StageContext, nulls: Counter[str], num_turns: int) -> None:
    """Refuse too many unscored turns; a trailing user turn, which has no quality, does not count."""
    failed = sum(count for reason, count in nulls.items() if reason != "no_response")
    limit = context.runtime["max_unscored_share"]
    if failed > limit * num_turns:
        parity = context.identity.get("parity")
        advice = "Leave parity: out, so that long prompts are shortened" if parity else "Raise max_length"
        raise UserError(
            f"{failed} of {num_turns} turns cannot be scored ({dict(nulls)}), above the share {limit} of "
            f"scorers.{context.identity['dimension']}.max_unscored_share. {advice}, or raise the share."
        )


def _metrics(
    context: StageContext, scores: np.ndarray, masses: np.ndarray, nulls: Counter[str], shortened: list[bool]
) -> dict[str, Any]:
    counts, edges = np.histogram(scores, bins=_HISTOGRAM_EDGES)
    mass = float(masses.mean()) if len(masses) else None
    return {
        "dimension": context.identity["dimension"],
        "max_length": read_plan(context.prepared_dir / PLAN).facts["max_length"],
        "rows": len(shortened),
        "turns": len(scores) + sum(nulls.values()),
        "scored": len(scores),
        "nulls": dict(nulls),
        "shortened": sum(shortened),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "mean": float(scores.mean()) if len(scores) else None,
        "digit_mass_mean": mass,
        "digit_mass_turns": len(masses),
        "wrong_model_suspected": mass is not None and mass < _SUSPECTED_BELOW,
    }

"""Stage `score`: one scorer over every turn of the pool [paper 2.3, 2.4].

Turns are paired by role: each user turn with the assistant's answer that follows it. A leading system or assistant
message is not scored; a trailing user turn has a complexity and a null quality.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import PreTrainedModel

from deita_train.data.no_rows import no_row_left
from deita_train.data.parallel import in_parallel
from deita_train.data.rendering import load_tokenizer
from deita_train.data.row_table import as_dataset
from deita_train.data.spilled import SpilledTables
from deita_train.errors import UserError
from deita_train.inference.batches import BatchPlan, plan_batches, read_plan
from deita_train.inference.forward import (
    check_logits,
    head_logits,
    last_hidden_states,
    last_logits,
    pad_batch,
)
from deita_train.inference.row_file import IDS, IDS_TYPE, RowFile, RowWriter
from deita_train.inference.shards import Columns
from deita_train.scoring.digits import digit_expectation, digit_mass
from deita_train.scoring.prompts import PromptEncoder
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, PassResult, load_pass_model, log, run_pass, start_ranks
from deita_train.stages.inference.row_reuse import Stored, input_hashes, join_reused, plan_missing
from deita_train.stages.inference.shared_rows import shared_rows
from deita_train.stages.row_limit import told_limit
from deita_train.stages.rows import scoring_encoder, turn_prompts
from deita_train.stages.stage_model import model_path, trusts_code

# Every user turn, and the prompts of those that can be scored, in the same order.
_TURNS, _PROMPTS = "turns.arrow", "prompts.arrow"
# Its prompt or None, whether that is shortened, and why there is none.
_Turn = tuple[list[int] | None, bool, str | None]
_HISTOGRAM_EDGES = [1 + 0.25 * step for step in range(21)]
# The probability on the digits needs the whole output head, so it is read only on every tenth batch.
_SAMPLED_BATCHES = 10
# Before hours of scoring, a few turns of medium length show whether the model answers with digits at all.
_TRIED_TURNS = 16
_SUSPECTED_BELOW = 0.5
_ROWS_PER_PART, _MOST_IN_MEMORY = 1 << 14, 1 << 25


def prepare(context: StageContext) -> None:
    """Encode every prompt once, and plan batches over those not scored before."""
    model = model_path(context)
    max_length = told_limit(context).tokens
    assert max_length is not None, "a scorer has a limit"
    tokenizer = load_tokenizer(str(model), trust_code=trusts_code(context.identity))
    encoder = scoring_encoder(tokenizer, context.identity, max_length)
    about = {
        "rows": "prompts",
        "dimension": context.identity["dimension"],
        "limit": max_length,
        "shortens": encoder.shortens,
    }
    reasons = Counter(
        shared_rows(context, tokenizer, about, [_TURNS, _PROMPTS], lambda: dict(_encode(context, encoder)))
    )
    prompts = RowFile(context.prepared_dir / _PROMPTS)
    _check_share(context, reasons, len(prompts) + reasons.total())
    if not len(prompts):
        raise no_row_left("can be scored", reasons, unit="turns")
    stored = Stored("input_hashes", _column(context))
    plan_missing(context, prompts, stored, {"digit_ids": encoder.digit_ids, "max_length": max_length})


def run(context: StageContext) -> StageResult | None:
    """Score this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    prompts = RowFile(context.prepared_dir / _PROMPTS)
    plan = read_plan(context.prepared_dir / PLAN)
    missing = plan.facts["missing"]
    model = load_pass_model(context, device, head=True)
    check_logits(model, prompts.tokens(0), device)
    # Even if nothing is missing: the limit may differ from that of the reused scores.
    tried = _try_digits(context, model, prompts, plan)
    digit_ids, sampled = plan.facts["digit_ids"], _sampled(plan)

    def compute(positions: Sequence[int]) -> Columns:
        hidden = last_hidden_states(model.base_model, pad_batch(prompts.rows(missing[positions]), device))
        score = digit_expectation(head_logits(model, hidden, digit_ids))
        mass = torch.full_like(score, torch.nan)
        if sampled[positions[0]]:
            mass = digit_mass(head_logits(model, hidden), digit_ids)
        return {"score": score.cpu().numpy(), "mass": mass.cpu().numpy()}

    result = run_pass(context, model, compute, ("score", "mass"))
    return None if result is None else _finish(context, prompts, result, tried, device.type)


def _sampled(plan: BatchPlan) -> np.ndarray:
    """Which positions are in every tenth batch by number, the first included: bool [N]."""
    sampled = np.zeros(len(plan.lengths), dtype=bool)
    for batch in plan.batches[::_SAMPLED_BATCHES]:
        sampled[batch] = True
    return sampled


def _try_digits(context: StageContext, model: PreTrainedModel, prompts: RowFile, plan: BatchPlan) -> np.ndarray:
    """The probability on the digits for up to 16 turns, float32 [<= 16]."""
    missing = plan.facts["missing"]
    items = missing if len(missing) else np.arange(len(prompts))
    batches = plan.batches if len(missing) else plan_batches(prompts.lengths, plan.max_batch_tokens)
    positions = batches[len(batches) // 2][:_TRIED_TURNS]
    logits = last_logits(model, pad_batch(prompts.rows(items[positions]), model.device))
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


def _encode(context: StageContext, encoder: PromptEncoder) -> Counter[str]:
    """Write an entry for each user turn, and the prompts of those that can be scored; counts the others by reason."""
    pool, reasons, number = _pool(context), Counter[str](), 0
    turns = RowWriter(
        context.prepared_dir / _TURNS, {"row": pa.int64(), "shortened": pa.bool_(), "reason": pa.string()}
    )
    with turns, RowWriter(context.prepared_dir / _PROMPTS, {IDS: IDS_TYPE}) as prompts:
        for part in in_parallel(len(pool), partial(_encoded, pool, encoder, context.identity["dimension"])):
            for of_row in part:
                for ids, shortened, reason in of_row:
                    turns.append(row=number, shortened=shortened, reason=reason)
                    if ids is not None:
                        prompts.append(input_ids=ids)
                    reasons.update([] if reason is None else [reason])
                number += 1
                context.progress.update(number, len(pool), "rows encoded")
    return reasons


def _encoded(pool: datasets.Dataset, encoder: PromptEncoder, dimension: str, part: range) -> list[list[_Turn]]:
    """The turns of some rows."""
    return [
        [
            (turn.prompt.input_ids, turn.prompt.shortened, None) if turn.prompt else (None, False, turn.reason)
            for turn in turn_prompts(encoder, dimension, row["messages"])
        ]
        for row in pool.select(part)
    ]


def _pool(context: StageContext) -> datasets.Dataset:
    return datasets.load_from_disk(str(context.parents["pool"] / "data"))


def _column(context: StageContext) -> str:
    return f"{context.identity['dimension']}_scores"


def _finish(context: StageContext, prompts: RowFile, result: PassResult, tried: np.ndarray, device: str) -> StageResult:
    plan = read_plan(context.prepared_dir / PLAN)
    scores, reused = join_reused(context, plan, result.columns.get("score"), len(prompts))
    masses = result.columns.get("mass", tried)
    masses = masses[~np.isnan(masses)]
    if len(masses):
        _check_mass(context, masses)
    turns, ids = RowFile(context.prepared_dir / _TURNS), _pool(context).data.column("id")
    rows, reasons = turns.numbers("row"), turns.column("reason")
    shortened = np.zeros(len(ids), dtype=bool)
    shortened[rows[turns.numbers("shortened")]] = True
    columns = {"id": ids, "shortened": pa.array(shortened)}
    of_turns = {
        _column(context): pa.chunked_array([pa.array(scores.astype(np.float32, copy=False))]),
        "input_hashes": input_hashes(prompts).column,
    }
    table = _joined(columns, of_turns, reasons, np.bincount(rows, minlength=len(ids)))
    order = ["id", _column(context), "reasons", "input_hashes", "shortened"]
    as_dataset(table.select(order)).save_to_disk(str(context.data_dir))
    counted = pc.value_counts(reasons.drop_null())
    nulls = Counter({str(entry["values"]): entry["counts"].as_py() for entry in counted})
    metrics = {**_metrics(context, scores, masses, nulls, shortened), **reused, **result.metrics}
    return StageResult(len(ids), len(ids), {}, metrics, device)


def _joined(
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    of_prompts: Mapping[str, pa.ChunkedArray],
    reasons: pa.ChunkedArray,
    counts: np.ndarray,
) -> pa.Table:
    """The table of all rows, made part by part, of which only a few are in memory.

    Args:
        columns: of the rows, [N].
        of_prompts: values of the turns that have a prompt, in order.
        reasons: why each turn has no prompt, null for one that has.
        counts: the turns of each row, [N].
    """
    tables = SpilledTables(_MOST_IN_MEMORY)
    turns = np.concatenate([[0], np.cumsum(counts)])
    prompts = np.concatenate([[0], np.cumsum(reasons.is_null().to_numpy())])
    for start in range(0, len(counts), _ROWS_PER_PART):
        ends = turns[start : start + _ROWS_PER_PART + 1]
        offsets = pa.array((ends - ends[0]).astype(np.int32))
        of_part = reasons.slice(ends[0], ends[-1] - ends[0]).combine_chunks()
        is_there = of_part.is_null().to_numpy(zero_copy_only=False)
        first, beyond = prompts[ends[[0, -1]]]
        lists = {"reasons": of_part} | {
            name: _spread(values.slice(first, beyond - first).combine_chunks(), is_there)
            for name, values in of_prompts.items()
        }
        arrays = {name: values.slice(start, _ROWS_PER_PART) for name, values in columns.items()}
        arrays |= {name: pa.ListArray.from_arrays(offsets, values) for name, values in lists.items()}
        tables.append(pa.table(arrays))
    return pa.concat_tables(tables)


def _spread(values: pa.Array, is_there: np.ndarray) -> pa.Array:
    """The values at the places that have one, in order; null at the others."""
    places = pa.array(np.cumsum(is_there) - 1, mask=~is_there)
    return values.take(places)


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
    context: StageContext, scores: np.ndarray, masses: np.ndarray, nulls: Counter[str], shortened: np.ndarray
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
        "shortened": int(shortened.sum()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "mean": float(scores.mean()) if len(scores) else None,
        "digit_mass_mean": mass,
        "digit_mass_turns": len(masses),
        "wrong_model_suspected": mass is not None and mass < _SUSPECTED_BELOW,
    }

"""Stage `train_scorer`: next-token prediction of one digit after the scorer's prompt [paper 2.3, 2.4]."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.batches import plan_batches
from deita_train.inference.forward import last_logits, load_model, pad_batch
from deita_train.scoring.calibration import heldout_measures
from deita_train.scoring.digits import digit_expectation
from deita_train.scoring.prompts import PromptEncoder
from deita_train.scoring.training_pairs import ScorerExample
from deita_train.stages.architecture import check_outside_model
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.scorer_data import read_scorer_data
from deita_train.stages.row_limit import RowLimit, stage_limit, told_limit
from deita_train.stages.rows import scorer_prompt, scorer_row, training_encoder
from deita_train.stages.stage_model import model_path
from deita_train.stages.training.adapter_merge import check_adapter, finish_adapter
from deita_train.stages.training.prepared_training import ROWS, train_prepared, write_count
from deita_train.training.rows import LabelledRow, write_training_rows

_CHECK_BATCH_TOKENS = 16384


def prepare(context: StageContext) -> None:
    """Encode prompt ids + digit id + end of sequence for every labelled row."""
    check_adapter(context)
    check_outside_model(context)
    examples = read_scorer_data(context.identity, context.runtime, "data", context.parents.get("labels"))
    count = write_training_rows(_rows(context, examples), context.prepared_dir / ROWS)
    write_count(context, count)


def run(context: StageContext) -> StageResult | None:
    """Train, with the loss on the digit and the end of sequence."""
    return train_prepared(context, model_path(context), None)


def finish(context: StageContext) -> dict[str, Any]:
    """How well the trained (and merged) scorer does on held-out rows; None without `heldout`."""
    metrics = {"dimension": context.identity["dimension"], **finish_adapter(context)}
    if context.identity["heldout"] is None:
        return {**metrics, "heldout": None}
    examples = read_scorer_data(context.identity, context.runtime, "heldout", context.parents.get("labels"))
    scores = _score(context, examples)
    truth = np.array([example.score for example in examples], dtype=np.float64)
    try:
        measures = heldout_measures(scores, truth)
    except UserError as error:
        raise UserError(f"{context.label}: {error}") from error
    return {**metrics, "heldout": {"rows": len(examples), **measures}}


def _rows(context: StageContext, examples: list[ScorerExample]) -> Iterator[LabelledRow]:
    tokenizer = load_tokenizer(str(model_path(context)))
    limit = _limit(told_limit(context))
    encoder = training_encoder(tokenizer, context.identity["dimension"], limit)
    for number, example in enumerate(examples):
        prompt = scorer_prompt(encoder, example, limit)
        context.progress.update(number + 1, len(examples), "rows encoded")
        yield scorer_row(encoder, example, prompt, tokenizer.eos_token_id)


def _limit(limit: RowLimit) -> int:
    assert limit.tokens is not None, "a scorer has a limit"
    return limit.tokens


def _score(context: StageContext, examples: list[ScorerExample]) -> np.ndarray:
    """Scores of the finished model, float64 [N], in the order of the examples."""
    device = torch.device("cpu" if context.use_cpu else "cuda")
    tokenizer = load_tokenizer(str(context.model_dir))
    limit = _limit(stage_limit(context, context.model_dir))
    encoder = PromptEncoder(tokenizer, context.identity["dimension"], limit)
    prompts = [scorer_prompt(encoder, example, limit).input_ids for example in examples]
    model = load_model(str(context.model_dir), "float32" if context.use_cpu else "bfloat16", device, head=True)
    scores = np.empty(len(prompts))
    for batch in plan_batches([len(ids) for ids in prompts], _CHECK_BATCH_TOKENS):
        logits = last_logits(model, pad_batch([prompts[position] for position in batch], device), encoder.digit_ids)
        scores[batch] = digit_expectation(logits).cpu().numpy()
    return scores

"""Part `passes`: scoring and embedding with a 7B in bfloat16, the engine against one row at a time."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import embedding
import numpy as np
import scoring
import torch
from passes import MAX_BATCH_TOKENS, Measured, run_engine
from transformers import PreTrainedModel

from deita_train.inference.forward import PaddedBatch, last_hidden_states, last_logits, pad_batch
from deita_train.scoring.digits import digit_expectation
from gpu.models import MINIATURE, MISTRAL_7B, Shape, make_mistral, random_ids
from gpu.profiling import profiled
from gpu.record import Figures, Recorder

_DIGIT_IDS = list(range(20, 26))  # the tokens that stand for the digits 1 to 6
# Between bfloat16 products of different shapes.
_SCORE_TOLERANCE, _MIN_COSINE = scoring.TOLERANCE[torch.bfloat16], embedding.MIN_COSINE[torch.bfloat16]

Loop = Callable[[PreTrainedModel, list[list[int]]], tuple[Measured, np.ndarray]]


@dataclass(frozen=True)
class Work:
    """A model and rows of `mean_length` tokens, give or take a third; the loop takes every `loop_step`-th of them."""

    model: Shape
    num_rows: int
    mean_length: int
    loop_step: int

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.mean_length * 4 // 3

    def rows(self) -> list[list[int]]:
        """Token ids."""
        draw = random.Random(0)
        shortest = self.mean_length * 2 // 3
        return [random_ids(draw, draw.randint(shortest, self.longest), self.model) for _ in range(self.num_rows)]


LARGE = Work(MISTRAL_7B, 1_000, 600, 25)
SMALL = Work(MINIATURE, 24, 30, 6)


@dataclass(frozen=True)
class Kind:
    """A pass, the loop that it replaces, and the check that both agree."""

    name: str
    compute: Callable[[PreTrainedModel, PaddedBatch], np.ndarray]
    loop: Loop
    compare: Callable[[np.ndarray, np.ndarray], dict[str, float]]


def run(record: Recorder) -> None:
    """Both passes, and the kernels of one batch."""
    work = SMALL if record.dry_run else LARGE
    rows = work.rows()
    model = make_mistral(work.model, record.device, record.dtype).eval()
    max_batch_tokens = MAX_BATCH_TOKENS[record.device.type]
    shape = {**vars(work.model), "rows": work.num_rows, "tokens_per_row": work.mean_length}
    shape["max_batch_tokens"] = max_batch_tokens
    for kind in (SCORING, EMBEDDING):
        _measure(record, kind, model, rows, work.loop_step, shape)

    def kernels() -> Figures:
        longest = sorted(rows, key=len)[-(max_batch_tokens // work.longest) :]
        batch = pad_batch(longest, record.device)
        return Figures(details=profiled(lambda: _scores(model, batch), record.device))

    record.measure("scoring, where the time of a batch goes", shape, kernels, needs_seconds=8)


def _measure(
    record: Recorder, kind: Kind, model: PreTrainedModel, rows: list[list[int]], step: int, shape: dict[str, Any]
) -> None:
    """A line for the loop over every `step`-th row and one for the engine over all."""
    looped: list[tuple[Measured, np.ndarray]] = []

    def one_at_a_time() -> Figures:
        kind.loop(model, rows[:2])  # loads kernels
        looped.append(kind.loop(model, rows[::step]))
        return _figures(looped[0][0], {})

    def engine() -> Figures:
        kind.compute(model, pad_batch(rows[:8], record.device))
        measured, columns = run_engine(kind.name, model, rows, lambda batch: {"value": kind.compute(model, batch)})
        details: dict[str, Any] = {"padding": measured.padding}
        for loop, values in looped:
            details |= kind.compare(columns["value"][::step], values)
            details["times_the_loop"] = _rate(measured) / _rate(loop)
        return _figures(measured, details)

    record.measure(f"{kind.name}, one at a time", {**shape, "rows": len(rows[::step])}, one_at_a_time)
    record.measure(f"{kind.name}, engine", shape, engine)


def _scores(model: PreTrainedModel, batch: PaddedBatch) -> np.ndarray:
    return digit_expectation(last_logits(model, batch, _DIGIT_IDS)).cpu().numpy()


def _vectors(model: PreTrainedModel, batch: PaddedBatch) -> np.ndarray:
    return last_hidden_states(model.base_model, batch).float().cpu().numpy()


def _score_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    difference = float(np.abs(ours - theirs).max())
    assert difference < _SCORE_TOLERANCE, f"scores differ from the loop's by up to {difference}"
    return {"largest_difference_to_loop": difference}


def _lowest_cosine(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    cosine = float(embedding.cosines(ours, theirs).min())
    assert cosine > _MIN_COSINE, f"the cosine of a vector with the loop's is {cosine}"
    return {"lowest_cosine_with_loop": cosine}


SCORING = Kind("scoring", _scores, lambda model, rows: scoring.loop(model, rows, _DIGIT_IDS), _score_difference)
EMBEDDING = Kind("embedding", _vectors, embedding.loop, _lowest_cosine)


def _rate(measured: Measured) -> float:
    return measured.tokens / measured.seconds


def _figures(measured: Measured, details: dict[str, Any]) -> Figures:
    return Figures(_rate(measured), measured.speed.flops_per_token, details)

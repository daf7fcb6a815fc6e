"""The scoring pass against the loop that it replaces: one prompt at a time, float32, two generated tokens.

    python benchmarks/scoring.py                    25M parameters on a CPU, 7B with random weights on a GPU

Both score the same prompts with the same model, and their scores are asserted to agree. MFU counts 2 FLOPs for each
weight of the trunk and real token, attention and padding left out. A 7B model is measured in bfloat16 alone, also the
loop.
"""

import argparse
import time

import numpy as np
import torch
from passes import (
    Measured,
    arguments,
    conversations,
    dtype_name,
    dtypes,
    make_model,
    make_tokenizer,
    measured_product,
    print_table,
    run_engine,
)
from progress import say, time_limit
from transformers import PreTrainedModel

from deita_train.data.conversations import user_turns
from deita_train.inference.forward import PaddedBatch, last_logits
from deita_train.inference.shards import Columns
from deita_train.inference.speed import Speed, flops_per_token
from deita_train.scoring.digits import digit_expectation
from deita_train.scoring.prompts import PromptEncoder

# Random weights put every score near 3.5, where bfloat16's rounding of six logits shows most.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.3}


def loop(model: PreTrainedModel, prompts: list[list[int]], digit_ids: list[int]) -> tuple[Measured, np.ndarray]:
    """One prompt after the other, two new tokens each, the whole vocabulary's logits kept, as the public code does."""
    scores = []
    started = time.perf_counter()
    for ids in prompts:
        row = torch.tensor([ids], device=model.device)
        answer = model.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=2,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=0,
        )
        scores.append(float(digit_expectation(answer.logits[0][:, digit_ids])))
    seconds = time.perf_counter() - started
    tokens = sum(map(len, prompts))
    name = f"one at a time, {dtype_name(model.dtype)}"
    return Measured(name, seconds, tokens, 0.0, Speed(flops_per_token(model))), np.array(scores)


def measure(options: argparse.Namespace) -> None:
    """Measure and print."""
    rows = conversations(options.rows)
    encoder = PromptEncoder(make_tokenizer(rows, options.size), "quality", 2048)
    encoded = [encoder.encode(*turn) for messages in rows for turn in user_turns(messages)]
    prompts = [prompt.input_ids for prompt in encoded if prompt is not None]
    step = max(1, len(prompts) // options.loop_rows)
    results: list[Measured] = []
    products, expected = {}, np.empty(0)
    for dtype in dtypes(options.size, options.device):
        model = make_model(options.size, options.device, dtype)
        if not results:
            say(f"one at a time, {options.loop_rows} rows")
            looped, expected = loop(model, prompts[::step], encoder.digit_ids)
            results.append(looped)

        def compute(batch: PaddedBatch, model: PreTrainedModel = model) -> Columns:
            logits = last_logits(model, batch, encoder.digit_ids)
            return {"score": digit_expectation(logits).cpu().numpy()}

        say(f"engine, {dtype_name(dtype)}")
        measured, columns = run_engine(f"engine, {dtype_name(dtype)}", model, prompts, compute)
        np.testing.assert_allclose(columns["score"][::step], expected, atol=TOLERANCE[dtype])
        products[measured.name] = measured_product(options.device, dtype)
        results.append(measured)
        del model
    total = f"{len(prompts):,} prompts of {sum(map(len, prompts)):,} tokens"
    print(f"{total}, {options.size} parameters, {options.device}; the loop on {len(expected)} of them\n")
    print_table(results, products)


def main() -> None:
    """Read the options and measure."""
    options = arguments(__doc__ or "", default_rows=400)
    with time_limit(options.minutes):
        measure(options)


if __name__ == "__main__":
    main()

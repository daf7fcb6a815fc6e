"""The embedding pass against a loop: one conversation at a time, float32, with the logits and every layer's states.

    python benchmarks/embedding.py                  25M parameters on a CPU, 7B with random weights on a GPU

Both embed the same conversations with the same model, and their directions are asserted to agree. MFU counts 2 FLOPs
for each weight of the trunk and real token, attention and padding left out. A 7B model is measured in bfloat16 alone,
also the loop.
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

from deita_train.data.rendering import render
from deita_train.inference.forward import PaddedBatch, last_hidden_states
from deita_train.inference.shards import Columns
from deita_train.inference.speed import Speed, flops_per_token

MIN_COSINE = {torch.float32: 1 - 1e-5, torch.bfloat16: 0.99}


def loop(model: PreTrainedModel, rows: list[list[int]]) -> tuple[Measured, np.ndarray]:
    """One conversation after the other, every layer's hidden states and the logits computed."""
    vectors = []
    started = time.perf_counter()
    with torch.inference_mode():
        for ids in rows:
            output = model(torch.tensor([ids], device=model.device), output_hidden_states=True)
            vectors.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
    seconds = time.perf_counter() - started
    name = f"one at a time, {dtype_name(model.dtype)}"
    return Measured(name, seconds, sum(map(len, rows)), 0.0, Speed(flops_per_token(model))), np.stack(vectors)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows."""
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def measure(options: argparse.Namespace) -> None:
    """Measure and print."""
    texts = conversations(options.rows)
    tokenizer = make_tokenizer(texts, options.size)
    rows = [render(tokenizer, messages, 2048).input_ids for messages in texts]
    step = max(1, len(rows) // options.loop_rows)
    results: list[Measured] = []
    products, expected = {}, np.empty(0)
    for dtype in dtypes(options.size, options.device):
        model = make_model(options.size, options.device, dtype)
        if not results:
            say(f"one at a time, {options.loop_rows} rows")
            looped, expected = loop(model, rows[::step])
            results.append(looped)

        def compute(batch: PaddedBatch, model: PreTrainedModel = model) -> Columns:
            return {"embedding": last_hidden_states(model.base_model, batch).float().cpu().numpy()}

        say(f"engine, {dtype_name(dtype)}")
        measured, columns = run_engine(f"engine, {dtype_name(dtype)}", model, rows, compute)
        assert cosines(columns["embedding"][::step], expected).min() > MIN_COSINE[dtype]
        products[measured.name] = measured_product(options.device, dtype)
        results.append(measured)
        del model
    total = f"{len(rows):,} conversations of {sum(map(len, rows)):,} tokens"
    print(f"{total}, {options.size} parameters, {options.device}; the loop on {len(expected)} of them\n")
    print_table(results, products)


def main() -> None:
    """Read the options and measure."""
    options = arguments(__doc__ or "", default_rows=500)
    with time_limit(options.minutes):
        measure(options)


if __name__ == "__main__":
    main()

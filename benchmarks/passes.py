"""What the two benchmarks of passes share: a model with random weights, conversations, the engine's batches, a table.

Run benchmarks/scoring.py or benchmarks/embedding.py, not this file.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from progress import add_time_limit, say
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from deita_train.data.builtin import builtin_conversations
from deita_train.inference.batch_inference import Pass
from deita_train.inference.batches import BatchPlan, padding_share, plan_batches
from deita_train.inference.cpu_bfloat16 import slow_bfloat16
from deita_train.inference.forward import PaddedBatch, pad_batch
from deita_train.inference.shards import Columns, collect
from deita_train.inference.speed import Speed, flops_per_token, peak_flops
from deita_train.training.miniature import train_tokenizer

# Width, layers, heads, MLP width, vocabulary: LLaMA's proportions.
SHAPES = {"25M": (512, 6, 8, 1376, 8000), "7B": (4096, 32, 32, 11008, 32000)}
TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
MAX_BATCH_TOKENS = {"cpu": 4_096, "cuda": 65_536}


@dataclass(frozen=True)
class Measured:
    """One way of doing the same work: seconds, real tokens, and the share of computed tokens that were padding."""

    name: str
    seconds: float
    tokens: int
    padding: float
    speed: Speed


def arguments(description: str, default_rows: int) -> argparse.Namespace:
    """The options of both scripts."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=list(SHAPES), default="7B" if torch.cuda.is_available() else "25M")
    parser.add_argument("--rows", type=int, default=default_rows, help="conversations of the generated pool")
    parser.add_argument("--loop-rows", type=int, default=60, help="rows of the one-at-a-time loop; its time is scaled")
    add_time_limit(parser)
    return parser.parse_args()


def conversations(num_rows: int) -> list[list[dict[str, str]]]:
    """Generated conversations of one to three turns."""
    return [row.row["messages"] for row in builtin_conversations("quickstart", num_rows, 42)]


def make_tokenizer(rows: Sequence[list[dict[str, str]]], size: str) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the rows' own text."""
    with tempfile.TemporaryDirectory() as folder:
        texts = (message["content"] for messages in rows for message in messages)
        return train_tokenizer(texts, min(SHAPES[size][-1], 2000), TEMPLATE, Path(folder))


def llama_config(width: int, layers: int, heads: int, mlp: int, vocabulary: int) -> LlamaConfig:
    """A LLaMA of that shape, without grouped heads."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
    )


def make_model(size: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A LLaMA of that size with random weights from a seed, in evaluation mode."""
    config = llama_config(*SHAPES[size])
    # Drawn in float32 where it fits, so that both precisions have the same weights.
    drawn_in = torch.float32 if size == "25M" else dtype
    return random_model(lambda: LlamaForCausalLM(config), device, drawn_in).to(dtype).eval()


def random_model(make: Callable[[], PreTrainedModel], device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose weights are drawn from a seed, on the device and in the dtype, and nowhere else before."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make()
    finally:
        torch.set_default_dtype(before)


def run_engine(
    name: str,
    model: PreTrainedModel,
    ids: Sequence[list[int]],
    compute: Callable[[PaddedBatch], Columns],
) -> tuple[Measured, Columns]:
    """The engine's pass over the rows, shards written and read back included."""
    device = torch.device(model.device)
    lengths = [len(row) for row in ids]
    max_batch_tokens = MAX_BATCH_TOKENS[device.type]
    started = time.perf_counter()
    plan = BatchPlan(plan_batches(lengths, max_batch_tokens), np.array(lengths), max_batch_tokens)
    speed = Speed(flops_per_token(model), peak_flops(device, model.dtype))
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder)

        def on_positions(positions: Sequence[int]) -> Columns:
            return compute(pad_batch([ids[position] for position in positions], device))

        Pass(plan, shards, on_positions, speed, lambda: None).run(range(len(plan.batches)))
        columns = collect(shards, len(ids))
    seconds = time.perf_counter() - started
    return Measured(name, seconds, sum(lengths), padding_share(plan.lengths, plan.batches), speed), columns


def measured_product(device: str, dtype: torch.dtype, size: int = 4096) -> float:
    """FLOP/s of a product of two matrices of `size` x `size` on this machine, now."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    repeats = 3 if device == "cpu" else 50
    (a @ a).sum().item()
    started = time.perf_counter()
    for _ in range(repeats):
        a @ a
    if device == "cuda":
        torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - started)


def dtypes(size: str, device: str) -> tuple[torch.dtype, ...]:
    """The precisions to measure: float32 if two copies of the model are small, bfloat16 unless a CPU is slow in it."""
    reason = slow_bfloat16() if device == "cpu" else None
    if reason is not None:
        say(f"bfloat16 is left out: {reason}")
        return (torch.float32,)
    return (torch.bfloat16,) if size == "7B" else (torch.float32, torch.bfloat16)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, without torch's prefix."""
    return str(dtype).removeprefix("torch.")


def print_table(rows: Sequence[Measured], products: dict[str, float]) -> None:
    """A markdown table, the loop first: every way as a ratio to it; on a GPU tokens a second and MFU too."""
    loop = rows[0]
    print("| way | real tokens/s, loop = 1 | padding | share of a measured matrix product | of the data sheet |")
    print("|---|---:|---:|---:|---:|")
    for row in rows:
        rate = row.tokens / row.seconds
        product = products.get(row.name)
        share = f"{rate * row.speed.flops_per_token / product:.0%}" if product and row.speed.flops_per_token else ""
        sheet = "" if row.speed.peak_flops is None else f"{rate * row.speed.flops_per_token / row.speed.peak_flops:.0%}"
        shown = f"{rate / (loop.tokens / loop.seconds):.1f}"
        if torch.cuda.is_available():
            shown += f" ({rate:,.0f})"
        print(f"| {row.name} | {shown} | {row.padding:.1%} | {share} | {sheet} |")
    if torch.cuda.is_available():
        print(f"\npeak GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")

"""How fast SFT trains: real tokens a second of the same rows, padded, in batches of similar length, and packed.

    python benchmarks/training.py            # on a CPU: a LLaMA of 25M, ratios within the run
    python benchmarks/training.py --gpu      # on one GPU: a Mistral of 7B, tokens a second, MFU, memory

Every way trains with the framework's own trainer on the same conversations in each step; the losses are compared.
On a GPU the rows are random tokens, cut so that a packed micro-batch has exactly the stated length.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import torch
from passes import SHAPES, conversations, llama_config, make_tokenizer, measured_product, random_model
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from deita_train.data.rendering import render
from deita_train.inference.speed import peak_flops
from deita_train.training.arguments import TrainingSettings, training_arguments
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.step_watch import StepWatch, training_flops_per_token
from deita_train.training.trainers import trainer_class

_WARM_UP = 1  # steps that are not timed
_BATCH = 32
_MAX_LENGTH = 512


@dataclass(frozen=True)
class Way:
    """One way of training: trl's fields, whether it packs, and the dtype that the weights are kept in."""

    name: str
    trainer: dict[str, Any]
    packing: bool = False
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Measured:
    """Real tokens a second behind the warm-up, the loss of each step, and the most memory in use, in GiB."""

    rate: float
    losses: list[float]
    memory: float


def measure(
    way: Way,
    make_model: Callable[[torch.dtype], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    folder: Path,
    *,
    use_cpu: bool,
    batch: int,
) -> Measured:
    """Train one epoch of the rows without saving anything."""
    trainer_fields = {"num_train_epochs": 1, "learning_rate": 1e-4, "logging_steps": 1, **way.trainer}
    settings = TrainingSettings(trainer_fields, batch, 1, 1, "NO", use_cpu, packing=way.packing)
    arguments = training_arguments(settings, len(rows), folder / "checkpoints")
    arguments.save_strategy = "no"
    model = make_model(way.dtype)
    if way.packing and not use_cpu:
        model.set_attn_implementation(arguments.model_init_kwargs["attn_implementation"])
    arguments.model_init_kwargs = None  # the model is there already
    trainer = trainer_class(settings)(
        lengths=list(rows["length"]), watch=StepWatch(), model=model, args=arguments, train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    counted = [0, *(entry["num_tokens"] for entry in logged)]
    tokens = [later - earlier for earlier, later in pairwise(counted)]
    seconds = [number / entry["tokens_per_second_per_device"] for number, entry in zip(tokens, logged, strict=True)]
    return Measured(
        sum(tokens[_WARM_UP:]) / sum(seconds[_WARM_UP:]),
        [float(entry["loss"]) for entry in logged],
        float(logged[-1]["memory_gib"]),
    )


def on_cpu(num_rows: int) -> None:
    """Part a: the ratios."""
    messages = conversations(num_rows)
    tokenizer = make_tokenizer(messages, "25M")
    rows = []
    for number, conversation in enumerate(messages):
        rendered = render(tokenizer, conversation, _MAX_LENGTH)
        rows.append(LabelledRow(str(number), rendered.input_ids, rendered.labels))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_training_rows(rows, folder / "rows")
        data = datasets.load_from_disk(str(folder / "rows"))
        print(f"{count.rows} rows of {count.tokens / count.rows:.0f} tokens on average, cut at {_MAX_LENGTH}\n")
        micro = {"per_device_train_batch_size": 8}
        ways = [
            Way(f"padded to {_MAX_LENGTH}", {**micro, "pad_to_multiple_of": _MAX_LENGTH}),
            Way("batches of similar length", micro),
            Way("packed", micro, packing=True),
        ]
        measured = [measure(way, _small_llama, tokenizer, data, folder, use_cpu=True, batch=_BATCH) for way in ways]
    first = measured[0]
    flops = training_flops_per_token(_small_llama(torch.float32))
    assert flops is not None
    product = measured_product("cpu", torch.float32)
    print("| way | real tokens/s, padded = 1 | share of a measured matrix product | largest difference of a loss |")
    print("|---|---:|---:|---:|")
    for way, result in zip(ways, measured, strict=True):
        difference = max(abs(one - other) for one, other in zip(result.losses, first.losses, strict=True))
        assert difference < 2e-3, f"{way.name} trains otherwise: its losses differ by up to {difference}"
        share = result.rate * flops / product
        print(f"| {way.name} | {result.rate / first.rate:.2f} | {share:.0%} | {difference:.1e} |")


def _small_llama(dtype: torch.dtype) -> PreTrainedModel:
    return random_model(lambda: LlamaForCausalLM(llama_config(*SHAPES["25M"])), "cpu", dtype)


def on_gpu(steps: int, lengths: Sequence[int]) -> None:
    """Part b: tokens a second, MFU and memory of the 7B."""
    tokenizer = make_tokenizer(conversations(50), "25M")
    peak = peak_flops(torch.device("cuda"), torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}\n")
    print("| precision | tokens | compile | checkpointing | tokens/s | MFU (6 N) | memory, GiB |")
    print("|---|---:|---|---|---:|---:|---:|")
    for length in lengths:
        for way in _gpu_ways():
            row = _gpu_row(way, length, steps, tokenizer, peak)
            print(f"| {way.name} | {length:,} | {row} |", flush=True)
            gc.collect()
            torch.cuda.empty_cache()


def _gpu_ways() -> list[Way]:
    return [
        Way(
            name,
            {"torch_compile": compiled, "activation_checkpointing": checkpointing, "optim": "adamw_torch_fused"},
            packing=True,
            dtype=dtype,
        )
        for name, dtype in (("bfloat16", torch.bfloat16), ("float32 weights", torch.float32))
        for compiled in (False, True)
        for checkpointing in (False, True)
    ]


def _gpu_row(way: Way, length: int, steps: int, tokenizer: PreTrainedTokenizerBase, peak: float | None) -> str:
    """Eight packed rows a step, each of four conversations."""
    parts, micro = 4, 8
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw = torch.Generator().manual_seed(1)
        rows = []
        for number in range(steps * micro * parts):
            ids = torch.randint(3, 2000, (length // parts,), generator=draw).tolist()
            rows.append(LabelledRow(str(number), ids, ids))
        write_training_rows(rows, folder / "rows")
        data = datasets.load_from_disk(str(folder / "rows"))
        flags = f"{'on' if way.trainer['torch_compile'] else 'off'} | "
        flags += "on" if way.trainer["activation_checkpointing"] else "off"
        stated = Way(way.name, {**way.trainer, "per_device_train_batch_size": parts}, True, way.dtype)
        torch.cuda.reset_peak_memory_stats()
        try:
            result = measure(stated, _mistral, tokenizer, data, folder, use_cpu=False, batch=micro * parts)
        except torch.OutOfMemoryError:
            return f"{flags} | out of memory | |"
    with torch.device("meta"):
        flops = training_flops_per_token(MistralForCausalLM(MistralConfig()))
    assert flops is not None
    mfu = "" if peak is None else f"{result.rate * flops / peak:.1%}"
    return f"{flags} | {result.rate:,.0f} | {mfu} | {result.memory:.1f}"


def _mistral(dtype: torch.dtype) -> PreTrainedModel:
    """Mistral-7B's shape with random weights."""
    return random_model(lambda: MistralForCausalLM(MistralConfig(sliding_window=None)), "cuda", dtype)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="part b: a Mistral of 7B on one GPU")
    parser.add_argument("--rows", type=int, default=160, help="conversations of the CPU's part")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of each way of the GPU's part")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096], help="tokens of a packed row")
    options = parser.parse_args()
    if options.gpu:
        on_gpu(options.steps, options.lengths)
    else:
        on_cpu(options.rows)


if __name__ == "__main__":
    main()

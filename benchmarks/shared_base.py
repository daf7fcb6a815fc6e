"""Two LoRA scorers and the embedding of their base: one base in memory for all, against a model for each.

    python benchmarks/shared_base.py                         a base of 100M parameters in float32, in seconds
    python benchmarks/shared_base.py --size 7B               in bfloat16; 14 GB of disk

Each way runs in a process of its own and asks for the three models in turn, as the stages do: "one after the other"
lets a model go before the next, "all at once" keeps the three, "shared" is the engine's. Loading is from the page
cache, after the libraries. The hidden states of the three models are asserted to be the same bits whichever way.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from passes import llama_config
from transformers import LlamaForCausalLM, PreTrainedModel

from deita_train.inference import trunk
from deita_train.inference.forward import last_hidden_states, load_model, pad_batch

# Width, layers, heads, MLP width, vocabulary, dtype.
SHAPES = {"100M": (768, 12, 12, 2048, 16_000, "float32"), "7B": (4096, 32, 32, 11008, 32000, "bfloat16")}
WAYS = ("one after the other", "all at once", "shared")
NAMES = ("complexity", "quality", "base")
ROWS = [[3 + (7 * row + place) % 1000 for place in range(40)] for row in range(8)]


@dataclass(frozen=True)
class Measured:
    """One way: bases read, seconds spent loading, the most bytes of weights held, and a hash of all hidden states."""

    way: str
    loads: int
    seconds: float
    weight_bytes: int
    states: str


def make_models(folder: Path, size: str) -> None:
    """A base with random weights and two adapters of rank 16 on it."""
    from peft import LoraConfig, get_peft_model

    *shape, dtype = SHAPES[size]
    config = llama_config(*shape)
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    base = LlamaForCausalLM(config)
    base.save_pretrained(folder / "base")
    for name in NAMES[:2]:
        lora = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
        adapted = get_peft_model(LlamaForCausalLM.from_pretrained(folder / "base", dtype=dtype), lora)
        for weight_name, weight in adapted.named_parameters():
            if "lora_B" in weight_name:
                torch.nn.init.normal_(weight, std=0.02)
        adapted.save_pretrained(folder / name)


def measure(way: str, folder: Path, size: str) -> Measured:
    """Ask for the three models in turn, one way, and read the hidden states of each."""
    load_model(str(folder / NAMES[0]), SHAPES[size][-1], torch.device("cpu"), head=True)  # imports peft
    device, dtype = torch.device("cuda" if torch.cuda.is_available() else "cpu"), SHAPES[size][-1]
    kept: list[PreTrainedModel] = []
    seconds, most, digest = 0.0, 0, hashlib.sha256()

    def use(name: str) -> None:
        nonlocal seconds, most
        if way != "all at once":
            kept.clear()
        began = time.perf_counter()
        model = load_model(str(folder / name), dtype, device, head=True)
        seconds += time.perf_counter() - began
        kept.append(model)
        most = max(most, held(kept))
        states = last_hidden_states(model.base_model, pad_batch(ROWS, device))
        digest.update(states.float().cpu().numpy().tobytes())

    loads = len(NAMES)
    if way == "shared":
        with trunk.sharing(lambda line: None) as shared:
            each(use)
            loads = shared.num_loads
    else:
        each(use)
    return Measured(way, loads, seconds, most, digest.hexdigest())


def each(use: Callable[[str], None]) -> None:
    """The three models in the order of the pipeline."""
    for name in NAMES:
        use(name)


def held(models: list[PreTrainedModel]) -> int:
    """The bytes of the models' different weights."""
    storages = {weight.untyped_storage().data_ptr(): weight for model in models for weight in model.parameters()}
    return sum(weight.untyped_storage().nbytes() for weight in storages.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="100M")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder, options.size)
        results = []
        for way in (WAYS[0], *WAYS):  # the first only brings the files into the page cache
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                results.append(alone.submit(measure, way, folder, options.size).result())
    first, *results = results
    assert len({result.states for result in (first, *results)}) == 1, "the hidden states differ"
    print("| way | bases loaded | loading, shared = 1 | weights held, shared = 1 |\n|---|---:|---:|---:|")
    shared = results[-1]
    for result in results:
        time_ratio, weight_ratio = result.seconds / shared.seconds, result.weight_bytes / shared.weight_bytes
        print(f"| {result.way} | {result.loads} | {time_ratio:.1f} | {weight_ratio:.2f} |")
    print(f"\n{options.size} parameters; shared holds {shared.weight_bytes / 2**20:,.0f} MiB of weights")


if __name__ == "__main__":
    main()

"""Part `smoke`: in seconds, what must work before anything else is worth its time."""

import math
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import torch
from passes import run_engine
from torch.nn.attention import SDPBackend, sdpa_kernel
from training import Measured, Way, measure
from transformers import MistralForCausalLM

from deita_train.inference.forward import last_hidden_states, pad_batch
from deita_train.training.fitting import Precision, sequences_that_fit
from deita_train.training.memory import ModelShape
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.step_watch import peak_memory
from gpu.models import MEDIUM, MINIATURE, Shape, make_mistral, random_ids
from gpu.record import Figures, Recorder

_COPIED_BYTES = {"cuda": 2**32, "cpu": 2**22}
_OPTIONAL = ("flash_attn", "liger_kernel", "bitsandbytes", "kernels", "deepspeed")
_MEMORY_GIB = {"cuda": 12.0, "cpu": 2.0}
_MOST_SEQUENCES = {"cuda": 64, "cpu": 4}


def run(record: Recorder) -> None:
    """One row for each."""
    shape = MINIATURE if record.dry_run else MEDIUM
    checks: dict[str, Callable[[Recorder, Shape], dict[str, Any]]] = {
        "the machine": machine,
        "attention kernels": kernels,
        "precision of products": precision,
        "one pass": one_pass,
        "one training step": one_step,
        "memory of a micro-batch": memory,
    }
    for name, check in checks.items():
        record.measure(name, vars(shape), lambda check=check: Figures(details=check(record, shape)))  # type: ignore[misc]


def machine(record: Recorder, shape: Shape) -> dict[str, Any]:
    """What it has, and how fast its memory is."""
    facts: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "disk_free_gib": shutil.disk_usage(tempfile.gettempdir()).free / 2**30,
        "installed": {name: find_spec(name) is not None for name in _OPTIONAL},
        "product_tflops": record.product / 1e12,
    }
    if record.device.type == "cuda":
        found = torch.cuda.get_device_properties(0)
        facts |= {"memory_gib": found.total_memory / 2**30, "capability": f"{found.major}.{found.minor}"}
        facts["driver_and_clock"] = _driver_and_clock()
    source = torch.ones(_COPIED_BYTES[record.device.type], dtype=torch.uint8, device=record.device)
    target = torch.empty_like(source)
    target.copy_(source)
    started = _now(record.device)
    target.copy_(source)
    facts["copy_gb_per_second"] = 2 * len(source) / (_now(record.device) - started) / 1e9
    return facts


def _driver_and_clock() -> str | None:
    """By nvidia-smi, None where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def kernels(record: Recorder, shape: Shape) -> dict[str, Any]:
    """torch's flash kernel with grouped heads, forward and backward, against plain mathematics."""
    draw = torch.Generator(record.device).manual_seed(0)
    size = shape.hidden_size // shape.num_attention_heads

    def heads(number: int) -> torch.Tensor:
        values = torch.randn(2, number, 64, size, generator=draw, device=record.device)
        return values.to(record.dtype).requires_grad_()

    query, key, value = (
        heads(shape.num_attention_heads),
        heads(shape.num_key_value_heads),
        heads(shape.num_key_value_heads),
    )
    found = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            attended = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=True
            )
        (gradient,) = torch.autograd.grad(attended.float().square().sum(), key)
        found.append((attended.detach().float(), gradient.float()))
    errors = [float((one - other).norm() / other.norm()) for one, other in zip(*found, strict=True)]
    assert max(errors) < 0.02, f"the flash kernel is off: {errors}"
    return {"attention_error": errors[0], "gradient_error": errors[1]}


def precision(record: Recorder, shape: Shape) -> dict[str, Any]:
    """Relative errors of products: float32 must be whole, which TF32 is not."""
    draw = torch.Generator(record.device).manual_seed(1)
    a = torch.randn(256, shape.hidden_size, generator=draw, device=record.device)
    right = a.double() @ a.double().T
    errors = {}
    for dtype in (torch.float32, record.dtype):
        product = (a.to(dtype) @ a.to(dtype).T).double()
        errors[str(dtype).removeprefix("torch.")] = float((product - right).norm() / right.norm())
    assert errors["float32"] < 1e-5, f"float32 products are not in float32: {errors}"
    assert max(errors.values()) < 0.01, errors
    return errors


def one_pass(record: Recorder, shape: Shape) -> dict[str, Any]:
    """The engine's vectors on the device against those of the same weights on the CPU in float32."""
    draw = random.Random(2)
    rows = [random_ids(draw, length, shape) for length in (3, 17, 33, 40)]
    model = make_mistral(shape, record.device, record.dtype).eval()
    _, columns = run_engine(
        "one pass", model, rows,
        lambda batch: {"embedding": last_hidden_states(model.base_model, batch).float().cpu().numpy()},
    )  # fmt: skip
    whole = model.float().cpu()
    cpu = torch.device("cpu")
    right = torch.cat([last_hidden_states(whole.base_model, pad_batch([row], cpu)) for row in rows])
    cosine = float(torch.cosine_similarity(torch.from_numpy(columns["embedding"]), right).min())
    assert cosine > 0.99, f"the cosine of a vector with the CPU's is {cosine}"
    return {"lowest_cosine_with_cpu": cosine}


def one_step(record: Recorder, shape: Shape) -> dict[str, Any]:
    """A step of the framework's own trainer; of random weights the loss is about that of a guess."""
    (loss,) = _train(record, shape, num_rows=4, micro_batch=2, length=32).losses
    guess = math.log(shape.vocab_size)
    assert abs(loss - guess) < 1, f"the loss is {loss}, that of a guess {guess}"
    return {"loss": loss, "loss_of_a_guess": guess}


def memory(record: Recorder, shape: Shape) -> dict[str, Any]:
    """A training step with as many sequences as are expected to fit into some GiB."""
    limit, length = _MEMORY_GIB[record.device.type], 32 if record.dry_run else 1024
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in MistralForCausalLM(shape.config()).parameters())
    fitting = sequences_that_fit(
        ModelShape(shape.config(), weights, weights),
        Precision(weight=record.dtype.itemsize, autocast=False),
        checkpointing=False, sharding=("NO", 1), longest=length, free_bytes=int(limit * 2**30),
    )  # fmt: skip
    tried = min(fitting, _MOST_SEQUENCES[record.device.type])
    # A CPU's peak is that of the whole process so far.
    before = 0 if record.device.type == "cuda" else peak_memory(record.device)
    measured = _train(record, shape, num_rows=tried, micro_batch=tried, length=length)
    used = measured.memory - before / 2**30
    assert used < limit, f"{tried} sequences took {used:.1f} GiB, and {fitting} were expected to fit into {limit}"
    return {"expected_to_fit": fitting, "tried": tried, "limit_gib": limit, "used_gib": used}


def _train(record: Recorder, shape: Shape, *, num_rows: int, micro_batch: int, length: int) -> Measured:
    """One optimizer step on random rows."""
    draw = random.Random(3)
    trainer = {"per_device_train_batch_size": micro_batch, "gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = (random_ids(draw, length, shape) for _ in range(num_rows))
        write_training_rows((LabelledRow(str(number), ids, ids) for number, ids in enumerate(drawn)), folder / "rows")
        return measure(
            Way("one step", trainer, dtype=record.dtype),
            lambda dtype: make_mistral(shape, record.device, dtype),
            train_tokenizer([], 259, "", folder / "tokenizer"),
            datasets.load_from_disk(str(folder / "rows")), folder, use_cpu=record.dry_run, batch=num_rows,
        )  # fmt: skip

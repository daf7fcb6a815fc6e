"""How a planned training uses memory: its launch, micro-batch, precision and length as the arithmetic wants them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deita_train.cost.shape import Sizes
from deita_train.cost.training_memory import DEEPSPEED_BUCKET, Setup, Sharding, training_memory
from deita_train.errors import UserError
from deita_train.plan.launch import Launch, read_config
from deita_train.plan.node import Node
from deita_train.plan.training_launch import read_deepspeed_file
from deita_train.training.fitting import Precision, sequences_that_fit
from deita_train.training.sizes import trained_dtype

_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
# training/arguments.py: most sequences of a micro-batch unless the recipe states it; a preference pair is two.
_MOST_SEQUENCES = 32
# Bytes of the optimizer for each trained weight, by what is in its name; Adam's two in float32 otherwise.
_MOMENTS = (("8bit", 2.0), ("adafactor", 0.0), ("sgd", 0.0), ("lion", 4.0), ("adagrad", 4.0))
_ADAM = 8.0
# Of each weight, in the machine's memory, where ZeRO-3 offloads: float32 weights, moments, and half-precision weights.
_HOST_BYTES = 14
# Bytes of a quantized weight with its scales.
_QUANTIZED = {"nf4": 0.52, "int8": 1.01}


def trainer_of(node: Node) -> dict[str, Any]:
    """A training's trl fields, those that decide its result and those of speed."""
    return {**node.identity["trainer"], **node.runtime["trainer"]}


def recomputes(node: Node) -> bool:
    """Whether a training computes its activations anew, which is the default on GPUs."""
    trainer, launch = trainer_of(node), node.runtime["launch"]
    stated = [bool(trainer[name]) for name in _CHECKPOINTING if trainer.get(name) is not None]
    return any(stated) if stated else not launch["use_cpu"]


def cut_at(node: Node) -> int | None:
    """Tokens to which a stage cuts its rows; None where it does not say."""
    identity = node.identity
    stated = identity.get("max_length", identity.get("trainer", {}).get("max_length"))
    return stated or identity.get("max_length_limit")


def setup_of(node: Node, sizes: Sizes, memory: int | None) -> Setup | str:
    """A planned training in numbers.

    Args:
        node: a stage that trains.
        sizes: of its model.
        memory: bytes of each GPU, of which the micro-batch follows where the recipe states none; None if unknown.

    Returns:
        The numbers, or why they are not known.
    """
    trainer, launch = trainer_of(node), Launch.from_dict(dict(node.runtime["launch"]))
    peft = node.identity.get("peft")
    adapter = sizes.adapter(peft) if peft is not None else None
    length = cut_at(node)
    if peft is not None and adapter is None:
        return "its adapter's layers are found when the model is loaded"
    if length is None:
        return "the length of its rows is not stated"
    half = node.identity["mixed_precision"] != "no"
    dtype = trained_dtype(trainer)
    quantization = node.identity.get("quantization")
    try:
        divided = _divided(launch)
    except UserError as error:
        return str(error)
    setup = Setup(
        sharding=_sharding(launch),
        ranks=launch.num_processes,
        # A quantized base is loaded in bfloat16, and so computes in it.
        weight_bytes=4 if dtype in ("float32", "auto") and quantization is None else 2,
        half=half,
        moment_bytes=_moments(trainer, dtype),
        micro_batch=1,
        length=length,
        checkpointing=recomputes(node),
        adapter=adapter,
        frozen_layers=0 if peft is None else sizes.frozen_layers(peft),
        base_bytes=None if quantization is None else _quantized(sizes, quantization),
        on_cpu=launch.use_cpu,
        offloads_optimizer=divided.get("offload_optimizer", False),
        offloads_weights=divided.get("offload_param", False),
        bucket=divided.get("bucket", DEEPSPEED_BUCKET),
    )
    return _with_micro_batch(node, sizes, setup, memory)


def _with_micro_batch(node: Node, sizes: Sizes, setup: Setup, memory: int | None) -> Setup:
    """As training/micro_batch.py chooses it, where the recipe does not state it."""
    pairs = 2 if node.kind == "dpo" else 1
    share = max(1, node.identity["global_batch_size"] // setup.ranks)
    stated = trainer_of(node).get("per_device_train_batch_size")
    most = min(_MOST_SEQUENCES // pairs, share)
    if stated is None and memory is not None and not setup.on_cpu:
        most = min(most, _fits(sizes, setup, memory) // pairs)
    micro = stated or next(size for size in range(max(1, most), 0, -1) if share % size == 0)
    return replace(setup, micro_batch=micro * pairs, accumulates=share > micro)


def _fits(sizes: Sizes, setup: Setup, memory: int) -> int:
    """The sequences that the run itself expects to fit."""
    whole = sizes.weights + (setup.adapter or 0)
    shape = SimpleNamespace(config=sizes, weights=whole, trained=whole if setup.adapter is None else setup.adapter)
    names = {"none": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP"}
    return sequences_that_fit(
        shape,
        Precision(setup.weight_bytes, autocast=setup.half and setup.weight_bytes == 4),
        checkpointing=setup.checkpointing,
        sharding=(names.get(setup.sharding, setup.sharding.upper()), setup.ranks),
        longest=setup.length,
        free_bytes=memory,
    )


def _sharding(launch: Launch) -> Sharding:
    if launch.distributed_type == "DEEPSPEED":
        stages: dict[int, Sharding] = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}
        stage = _divided(launch)["stage"]
        return stages[stage]
    if launch.distributed_type == "FSDP":
        return "fsdp"
    return "ddp" if launch.num_processes > 1 else "none"


def _divided(launch: Launch) -> dict[str, Any]:
    """What is offloaded under DeepSpeed and FSDP, and DeepSpeed's stage and the size of its buffer; else nothing.

    Raises:
        UserError: DeepSpeed's own file cannot be read.
    """
    config = read_config(Path(launch.config_file))
    if launch.distributed_type == "FSDP":
        return {"offload_param": bool((config.get("fsdp_config") or {}).get("fsdp_offload_params"))}
    if launch.distributed_type != "DEEPSPEED":
        return {}
    settings = config.get("deepspeed_config") or {}
    if "deepspeed_config_file" in settings:
        zero = read_deepspeed_file(Path(settings["deepspeed_config_file"]))["zero_optimization"]
        places = {name: (zero.get(name) or {}).get("device", "none") for name in ("offload_optimizer", "offload_param")}
        bucket = zero.get("reduce_bucket_size")
        stage = zero["stage"]
    else:
        places = {name: settings.get(f"{name}_device", "none") for name in ("offload_optimizer", "offload_param")}
        bucket, stage = None, settings.get("zero_stage", 2)
    found: dict[str, Any] = {name: place not in ("none", None) for name, place in places.items()}
    return {**found, "stage": stage, **({"bucket": int(bucket)} if isinstance(bucket, int | float) else {})}


def _moments(trainer: Mapping[str, Any], dtype: str) -> float:
    name = str(trainer.get("optim", ""))
    bytes_each = next((size for part, size in _MOMENTS if part in name), _ADAM)
    return bytes_each / (1 if dtype in ("float32", "auto") or bytes_each < 4 else 2)


def _quantized(sizes: Sizes, quantization: str) -> float:
    """Bytes of a weight on average: the layers are quantized, tables and head stay in bfloat16."""
    return (_QUANTIZED[quantization] * sizes.trunk + 2 * (sizes.weights - sizes.trunk)) / sizes.weights


def ways_to_fit(node: Node, sizes: Sizes, setup: Setup, memory: int) -> list[str]:
    """What would fit into a GPU's memory, the smallest changes first; at most three."""
    pairs = 2 if node.kind == "dpo" else 1
    smaller = replace(setup, micro_batch=pairs, checkpointing=True)
    ways: list[tuple[str, Setup]] = []
    if setup.micro_batch > pairs:
        ways.append(("trainer.per_device_train_batch_size: 1", replace(setup, micro_batch=pairs)))
    if not setup.checkpointing:
        ways.append(("trainer.activation_checkpointing: true", replace(setup, checkpointing=True)))
    if setup.ranks > 1 and setup.sharding != "zero3":
        ways.append(("launch: zero3", replace(smaller, sharding="zero3")))
    if setup.sharding != "fsdp" and setup.ranks > 1:
        ways.append(("launch: fsdp2", replace(smaller, sharding="fsdp")))
    offloaded = replace(smaller, sharding="zero3", offloads_optimizer=True, offloads_weights=True)
    beside = f"{_HOST_BYTES * sizes.weights / 1e9:,.0f} GB of the machine's memory"
    ways.append((f"launch: zero3_offload, with {beside}", offloaded))
    for ranks in (2, 4, 8, 16, 32, 64):
        if ranks > setup.ranks:
            ways.append((f"{ranks} GPUs with launch: zero3", replace(smaller, sharding="zero3", ranks=ranks)))
    low_rank = sizes.adapter({"r": 16, "target_modules": "all-linear"})
    if setup.adapter is None and low_rank is not None and node.kind != "base":
        loaded = replace(smaller, sharding="none", adapter=low_rank, base_bytes=2.0)
        ways.append(("an adapter (peft:) over a base in bfloat16 (model_init_kwargs)", loaded))
    ways.append(("half the max_length", replace(smaller, length=setup.length // 2)))
    fitting = [words for words, way in ways if training_memory(sizes, way).total <= memory]
    more = [words for words in fitting if words.endswith("zero3") and words[0].isdigit()]
    return [words for words in fitting if words not in more[1:]][:3]

"""The CPU twin of every launch: the same kind of parallel training, on two ranks of this machine."""

from pathlib import Path

from deita_train.errors import UserError
from deita_train.plan.launch import Launch, read_config, resolve_launch
from deita_train.run.rehearsal.rewriting import Rewriter
from deita_train.selection.settings import DIMENSIONS

_TWINS = {"MULTI_GPU": "cpu_ddp", "MULTI_CPU": "cpu_ddp", "FSDP": "cpu_fsdp2", "NO": "cpu"}
_SHARDED_WEIGHTS = 3
_TRAININGS = ("base.pretrain", *(f"scorers.{dimension}.train" for dimension in DIMENSIONS), "sft", "dpo")
_PASSES = (
    *(f"scorers.{dimension}" for dimension in DIMENSIONS), "embedding", "perplexity", "select", "dpo.reference",
    "evaluate",
)  # fmt: skip


def trainings(recipe: Rewriter) -> list[str]:
    """The sections of a recipe that train."""
    return [section for section in _TRAININGS if recipe.has(section)]


def passes(recipe: Rewriter) -> list[str]:
    """The sections of a recipe whose model, or selection, passes over rows."""
    return [section for section in _PASSES if recipe.has(section)]


def put_twins(recipe: Rewriter) -> None:
    """Put the CPU's twin in the place of every launch that is stated; without one, a stage has one process here."""
    for section in (*trainings(recipe), *passes(recipe)):
        name = recipe.at(f"{section}.launch")
        if isinstance(name, str):
            recipe.put(f"{section}.launch", twin_of(name), "the same kind of launch on the CPU")


def needs_gpus(recipe: Rewriter) -> bool:
    """Whether a launch that the recipe states is for GPUs."""
    named = (recipe.at(f"{section}.launch") for section in (*trainings(recipe), *passes(recipe)))
    return any(isinstance(name, str) and _is_of_gpus(name) for name in named)


def _is_of_gpus(name: str) -> bool:
    """Whether a launch is for GPUs; an unknown one is refused when the recipe is planned, with its place."""
    try:
        return not _launch(name).use_cpu
    except UserError:
        return False


def twin_of(name: str) -> str:
    """The launch file for the CPU of the same kind; a CPU's own is its twin.

    Raises:
        UserError: there is no such launch.
    """
    launch = _launch(name)
    if launch.use_cpu:
        return name
    if launch.distributed_type != "DEEPSPEED":
        return _TWINS.get(launch.distributed_type, "cpu_ddp")
    return "cpu_zero3" if _zero_stage(launch) == _SHARDED_WEIGHTS else "cpu_zero2"


def ranks_of(recipe: Rewriter, section: str) -> int:
    """How many ranks a section has once the twins are in their places."""
    name = recipe.at(f"{section}.launch")
    return _launch(name).num_processes if isinstance(name, str) else 1


def _launch(name: str) -> Launch:
    return resolve_launch(name, 2)


def _zero_stage(launch: Launch) -> int:
    """What ZeRO divides among the ranks, from accelerate's file or the file of DeepSpeed's that it names."""
    if launch.zero_stage is not None:
        return launch.zero_stage
    from deita_train.plan.training_launch import read_deepspeed_file

    settings = read_config(Path(launch.config_file)).get("deepspeed_config") or {}
    stage = read_deepspeed_file(Path(settings["deepspeed_config_file"]))["zero_optimization"]["stage"]
    return int(stage)

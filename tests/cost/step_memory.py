"""The most bytes that a real training step holds on a CPU, counted in torch's own allocator."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import torch
from forked_ranks import fork_ranks, launch_environment
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback, trainer

from deita_train.data.rendering import load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.trainer_run import train

ROOT = Path(__file__).parents[2]
# Of a ZeRO launch: DeepSpeed's buffers for a few weights, or else they would be larger than everything together.
BUCKET = 200_000
# Two whole steps, so that the second one has the optimizer's moments from its beginning.
_STEPS = 2
_TOKENS = 259
_DEEPSPEED = """\
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
num_machines: 1
num_processes: 2
deepspeed_config:
  deepspeed_config_file: {settings}
  zero3_init_flag: {shards_at_once}
"""


@dataclass
class Step:
    """A training step under a launch: cpu, ddp, zero2 or zero3."""

    launch: str = "cpu"
    micro: int = 2
    accumulation: int = 2
    length: int = 128
    checkpointing: bool = False
    peft: dict | None = None
    half: bool = False

    @property
    def ranks(self):
        return 1 if self.launch == "cpu" else 2

    @property
    def distributed_type(self):
        return {"cpu": "NO", "ddp": "MULTI_CPU"}.get(self.launch, "DEEPSPEED")

    def launch_file(self, folder):
        """accelerate's configuration of two ranks."""
        if self.launch == "ddp":
            return ROOT / "accelerate_configs" / "cpu_ddp.yaml"
        zero = {
            "stage": int(self.launch.removeprefix("zero")),
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
        batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        settings = {"zero_optimization": zero, "gradient_clipping": "auto", **dict.fromkeys(batch, "auto")}
        (folder / "zero.json").write_text(json.dumps(settings))
        shards_at_once = str(zero["stage"] == 3).lower()
        file = folder / "zero.yaml"
        file.write_text(_DEEPSPEED.format(settings=folder / "zero.json", shards_at_once=shards_at_once))
        return file


def make_model(folder, config):
    """A random model of a configuration, as plain data, with a tokenizer beside it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(folder / "model")
    train_tokenizer([], _TOKENS, "", folder / "model")


def measured_bytes(processes, folder, step):
    """The most bytes that rank 0 holds in a step on the model in the folder."""
    out = folder / "measured"
    rows = step.micro * step.accumulation * step.ranks * _STEPS
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(3, _TOKENS, (rows, step.length), generator=draw).tolist()
    write_training_rows([LabelledRow(f"r{number}", row, row) for number, row in enumerate(ids)], folder / "rows")
    environment = launch_environment(step.launch_file(folder)) if step.ranks > 1 else {}
    log = folder / "log"
    codes = fork_ranks(processes, _be_measured, (folder, asdict(step), out), step.ranks, log, environment)
    assert set(codes) == {0}, log.read_text()
    return int(out.read_text())


class _Stopped(Exception):
    """The steps are done."""


class _Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == _STEPS:
            raise _Stopped


def _be_measured(folder, values, out):
    step = Step(**values)
    fields = {
        "max_steps": _STEPS + 1, "per_device_train_batch_size": step.micro, "bf16": step.half,
        "gradient_checkpointing": step.checkpointing,
    }  # fmt: skip
    batch = step.micro * step.accumulation * step.ranks
    settings = TrainingSettings(fields, batch, 1, step.ranks, step.distributed_type, True, peft=step.peft)
    trainer.DEFAULT_CALLBACKS = [*trainer.DEFAULT_CALLBACKS, _Stop]
    model, rows = str(folder / "model"), datasets.load_from_disk(str(folder / "rows"))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched, suppress(_Stopped):
        train(model, load_tokenizer(model), rows, settings, folder / "out" / "c", folder / "out" / "m", _no, _no)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        out.write_text(str(_most_held(watched)))


def _most_held(watched):
    """The highest sum of what was allocated and not yet freed."""
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _no(*told):
    """Nobody listens here."""

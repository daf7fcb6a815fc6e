"""Trainings of a miniature for tests on one rank and on several: prepared rows, and jobs that are carried out on them.

Run as a script on the launched ranks: `rank_trainings.py FOLDER DISTRIBUTED_TYPE JOBS`, where FOLDER is what
`make_inputs` made, DISTRIBUTED_TYPE what accelerate must call the launch, and JOBS a JSON list of jobs.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from forked_ranks import fork_ranks, launch_environment
from safetensors.torch import load_file
from torch.distributed.fsdp import FullyShardedDataParallel, _optim_utils
from torch.distributed.fsdp._flat_param import FlatParamHandle
from transformers import TrainerCallback, trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from deita_train.data.rendering import IGNORED, RenderedPair, load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, PairRow, write_pair_rows, write_training_rows
from deita_train.training.trainer_run import train

ROOT = Path(__file__).parents[2]
# Two epochs of four steps, with a checkpoint after every second. An epoch's last step has one row: one of two ranks has
# none, under every launch.
NUM_ROWS, BATCH, SEED, NUM_STEPS = 25, 8, 5, 8
# Adam magnifies the rounding of gradients near zero; a larger epsilon does not.
TRAINER = {"learning_rate": 3e-3, "adam_epsilon": 1e-6, "num_train_epochs": 2, "logging_steps": 1, "save_steps": 2}
LORA = {"r": 4, "target_modules": "all-linear"}
# What a training with random numbers in it needs to be the same after a restart.
DROPOUT = {"model_init_kwargs": {"attention_dropout": 0.3}}
FSDP2 = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
use_cpu: true
num_machines: 1
num_processes: {num_processes}
mixed_precision: 'no'
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_offload_params: false
  fsdp_activation_checkpointing: false
"""


@dataclass
class Job:
    """One call of `train`, in the folder `name`.

    `stop_before` is a step (from 0) that it does not begin. With `killed_after` SIGKILL comes that many seconds after
    the beginning of that step instead. The tokenizer is the model's unless another folder is named.
    """

    name: str
    kind: str = "sft"
    stop_before: int | None = None
    killed_after: float | None = None
    lora: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)
    model: str = "base"
    tokenizer: str = ""


class Stopped(Exception):
    """The job stopped where it should."""


def make_inputs(folder):
    """A base model, rows for SFT of 6 to 30 tokens, and pairs for DPO with log-probabilities as a reference gives."""
    tokenizer = train_tokenizer([], 259, "", folder / "base")
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 128}
    make_model(tokenizer, **shape, seed=3, folder=folder / "base")
    draw = torch.Generator().manual_seed(1)

    def tokens(number):
        return torch.randint(3, 259, (number,), generator=draw).tolist()

    rows, pairs = [], []
    for number in range(NUM_ROWS):
        ids = tokens(6 + number)
        silent = 3 + number // 2
        rows.append(LabelledRow(f"r{number}", ids, [IGNORED] * silent + ids[silent:]))
        pair = RenderedPair(tokens(4 + number % 5), tokens(3 + number % 7), tokens(2 + number % 11), False)
        # About what random weights give: the logarithm of a 259th for each token.
        pairs.append(PairRow(f"p{number}", pair, *(-5.56 * len(ids) for ids in (pair.chosen_ids, pair.rejected_ids))))
    write_training_rows(rows, folder / "sft_rows")
    write_pair_rows(pairs, folder / "dpo_rows")


def run(folder, job, world_size=1, distributed_type="NO"):
    """Carry out one job as the stages do; what it came to lies in `<name>/outcome.json`, unless it stops."""
    witness = Witness(job, world_size, distributed_type)
    settings = TrainingSettings(
        {**TRAINER, **job.trainer}, BATCH, SEED, world_size, distributed_type, True,
        kind=job.kind, peft=LORA if job.lora else None,
    )  # fmt: skip
    base, out = str(folder / job.model), folder / job.name
    tokenizer = load_tokenizer(str(folder / (job.tokenizer or job.model)))
    rows = datasets.load_from_disk(str(folder / f"{job.kind}_rows"))
    callbacks = trainer.DEFAULT_CALLBACKS
    trainer.DEFAULT_CALLBACKS = [*callbacks, witness]
    try:
        outcome = train(base, tokenizer, rows, settings, out / "checkpoints", out / "model", ignore, ignore)
    finally:
        trainer.DEFAULT_CALLBACKS = callbacks
        unset_hf_deepspeed_config()  # a stage's process ends here; this one's next job begins as it did
    if int(os.environ.get("RANK", "0")) == 0:
        seen = {"parameters": witness.parameters, "steps_here": witness.steps, "accumulation": witness.accumulation}
        (out / "outcome.json").write_text(json.dumps({**asdict(outcome), **seen}))


def ignore(*told):
    """Nobody listens here."""


class Witness(TrainerCallback):
    """Sees what really trains, and stops a job."""

    def __init__(self, job, world_size, distributed_type):
        self.job, self.promised = job, (world_size, distributed_type)
        self.parameters, self.steps, self.accumulation = [], 0, None

    def on_train_begin(self, args, state, control, **kwargs):
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        assert (ranks, args.distributed_state.distributed_type.name) == self.promised
        self.accumulation = args.gradient_accumulation_steps

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.job.stop_before:
            if self.job.killed_after is None:
                raise Stopped
            threading.Timer(self.job.killed_after, os.kill, (os.getpid(), signal.SIGKILL)).start()
        self.parameters = sorted({kind_of(parameter) for parameter in model.parameters()})
        self.steps += 1


def kind_of(parameter):
    """How a rank holds a parameter."""
    return "ZeRO-3" if hasattr(parameter, "ds_tensor") else type(parameter).__name__


def launch(folder, config_file, distributed_type, jobs):
    """Carry out jobs on the ranks of an accelerate configuration; what they printed."""
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0",
        "--config_file", str(config_file), __file__, str(folder), distributed_type,
        json.dumps([asdict(job) for job in jobs]),
    ]  # fmt: skip
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def fork(processes, folder, job, world_size=1):
    """Carry out a job in forked children, one for each rank of DDP; their exit codes. Rank 0 prints to `<name>/log`."""
    log = folder / job.name / "log"
    return fork_ranks(processes, run_forked, (folder, job, world_size), world_size, log)


def run_forked(folder, job, world_size):
    """What a forked child does."""
    try:
        run(folder, job, world_size, "NO" if world_size == 1 else "MULTI_CPU")
    except Stopped:
        return
    assert job.stop_before is None or job.killed_after is not None


def fork_launch(processes, folder, config_file, distributed_type, jobs):
    """As `launch`, on two forked ranks with the environment that accelerate would give them."""
    log = folder / f"{config_file.stem}.log"
    environment = launch_environment(config_file)
    codes = fork_ranks(processes, carry_out, (folder, distributed_type, jobs), 2, log, environment)
    assert codes == [0, 0], log.read_text() + log.with_name(f"{log.name}1").read_text()
    return log.read_text()


def renamed(job, name, **changes):
    """The same training in another folder."""
    return replace(job, name=name, **changes)


def outcome(folder, name):
    """What a job that came to its end left."""
    return json.loads((folder / name / "outcome.json").read_text())


def losses(folder, name):
    """The loss of each step of a job that came to its end."""
    history = outcome(folder, name)["history"]
    assert [entry["step"] for entry in history] == list(range(1, NUM_STEPS + 1))
    return [entry["loss"] for entry in history]


def weights(folder, name):
    """The tensors of a job's model or adapter."""
    [file] = (folder / name / "model").glob("*.safetensors")
    return load_file(file)


def assert_same_bits(folder, one, other):
    """Losses and weights of two jobs are equal, bit by bit."""
    assert losses(folder, one) == losses(folder, other)
    first, second = weights(folder, one), weights(folder, other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def let_fsdp_train_on_a_cpu():
    """accelerate selects FSDP where it finds several GPUs; what it then does needs none of them."""
    initialise = PartialState.__init__

    def initialise_as_on_gpus(self, *arguments, **named):
        initialise(self, *arguments, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = initialise_as_on_gpus


def let_fsdp1_train_on_a_cpu():
    """FSDP1 copies to the CPU before it reuses memory, and there a copy to the CPU is none."""
    wrap, unflatten = FullyShardedDataParallel.__init__, _optim_utils._unflatten_orig_param_states

    def wrap_without_index(self, *arguments, device_id=None, **named):
        wrap(self, *arguments, device_id=torch.device("cpu"), **named)

    def unflatten_to_copies(fsdp_param_info, output_states, state_name, *how):
        unflatten(fsdp_param_info, output_states, state_name, *how)
        for states in output_states.values():
            if state_name in states:
                states[state_name] = states[state_name].clone()

    FullyShardedDataParallel.__init__ = wrap_without_index
    FlatParamHandle.to_cpu = nullcontext
    _optim_utils._unflatten_orig_param_states = unflatten_to_copies


def carry_out(folder, distributed_type, jobs):
    """Carry out jobs as one of the launched ranks."""
    if distributed_type == "FSDP":
        let_fsdp_train_on_a_cpu()
        let_fsdp1_train_on_a_cpu()
    for job in jobs:
        try:
            run(folder, job, int(os.environ["WORLD_SIZE"]), distributed_type)
        except Stopped:
            continue
        if job.killed_after is not None:
            time.sleep(10)  # it was faster than the kill
        assert job.stop_before is None


if __name__ == "__main__":
    carry_out(Path(sys.argv[1]), sys.argv[2], [Job(**values) for values in json.loads(sys.argv[3])])

"""How a stage's processes are started: accelerate's configuration files, and the command that a person could paste."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from deita_train.errors import UserError

_PACKAGE_DIR = Path(__file__).parent.parent
# In a checkout the files lie beside the package; in a wheel inside it.
CONFIG_DIRS = (_PACKAGE_DIR.parent / "accelerate_configs", _PACKAGE_DIR / "accelerate_configs")
# accelerate takes no use_cpu beside DeepSpeed, so these two of our own files cannot say it themselves.
_CPU_DEEPSPEED = {folder / f"cpu_zero{stage}.yaml" for folder in CONFIG_DIRS for stage in (2, 3)}

_OF_MACHINE = (
    '--machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_PROCESS_IP" --main_process_port "$MAIN_PROCESS_PORT"'
)


@dataclass(frozen=True)
class Launch:
    """The launch that a stage expects; each of its processes checks what it got against this.

    `num_processes` is the total over all machines.
    """

    config_file: str
    num_processes: int
    distributed_type: str
    use_cpu: bool
    num_machines: int = 1

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a node's settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Launch":
        """The inverse of :meth:`as_dict`."""
        return cls(**values)

    @property
    def forked(self) -> bool:
        """One process on a CPU needs no launcher: it is forked from a process that has imported everything."""
        return self.use_cpu and self.num_processes == 1

    @property
    def zero_stage(self) -> int | None:
        """Of a DeepSpeed launch, what is divided among the ranks; None where the file does not say it."""
        stage = (read_config(Path(self.config_file)).get("deepspeed_config") or {}).get("zero_stage")
        return stage if isinstance(stage, int) else None

    def command(self, arguments: list[str]) -> list[str]:
        """The command line that carries out `deita-train <arguments>` under this launch, on this machine alone."""
        assert self.num_machines == 1, "nobody but the user can start processes on other machines"
        return [
            sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
            "--config_file", self.config_file, "--num_processes", str(self.num_processes), "--main_process_port", "0",
            "-m", "deita_train.cli", *arguments,
        ]  # fmt: skip

    def printed_command(self, arguments: list[str]) -> str:
        """The same for a person to type; on several machines, on each of them with three variables set."""
        file = Path(self.config_file)
        shown = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
        head = f"accelerate launch --config_file {shlex.quote(shown)} --num_processes {self.num_processes}"
        where = "--main_process_port 0"
        if self.num_machines > 1:
            where = f"--num_machines {self.num_machines} {_OF_MACHINE}"
        return f"{head} {where} -m deita_train.cli {shlex.join(arguments)}"


@lru_cache(maxsize=64)
def resolve_launch(name: str | None, planned_gpus: int | None = None) -> Launch:
    """The launch that `launch:` names: a file of accelerate_configs/, a path, or None for what the machine has.

    Args:
        name: as in the recipe.
        planned_gpus: GPUs of each machine that will run it; None counts this machine's.

    Raises:
        UserError: an unknown name, a file that is not accelerate's, or missing GPUs.
    """
    gpus = count_gpus() if planned_gpus is None else planned_gpus
    if name is None:
        name = {0: "cpu", 1: "single_gpu"}.get(gpus, "ddp")
    file = _find_config(name)
    values = read_config(file)
    use_cpu = bool(values.get("use_cpu", False)) or file in _CPU_DEEPSPEED
    machines = _count(file, values, "num_machines") or 1
    if machines > 1:
        _check_starts_everywhere(file, values)
    num_processes = _count(file, values, "num_processes") or (1 if use_cpu else gpus * machines)
    if not use_cpu and gpus == 0:
        raise UserError(
            f"{name} needs GPUs and this machine has none; cpu, cpu_ddp, cpu_zero2, cpu_zero3, cpu_fsdp2 do without. "
            "To plan or validate for a machine that has some, state how many: --gpus N."
        )
    return Launch(str(file), num_processes, str(values.get("distributed_type", "NO")), use_cpu, machines)


def gpu_of_one_process(planned_gpus: int | None = None) -> str | None:
    """The launch of a stage that uses one GPU if there is one; None where the machine has none."""
    return "single_gpu" if (count_gpus() if planned_gpus is None else planned_gpus) else None


def _find_config(name: str) -> Path:
    for folder in CONFIG_DIRS:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path.resolve()
    known = sorted({file.stem for folder in CONFIG_DIRS for file in folder.glob("*.yaml")})
    raise UserError(f"{name} is unknown; allowed: {', '.join(known)}, or a path to an accelerate configuration")


def read_config(file: Path) -> dict[str, Any]:
    """An accelerate configuration as plain data.

    Raises:
        UserError: it is not one.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(file)
    except YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}; fix it") from error
    if not isinstance(values, dict) or "distributed_type" not in values:
        raise UserError(
            f"{file} has no distributed_type: not an accelerate configuration; `accelerate config` writes one"
        )
    return values


def _check_starts_everywhere(file: Path, values: dict[str, Any]) -> None:
    """By default accelerate lets DeepSpeed log in to the other machines and start its ranks there."""
    starter = (values.get("deepspeed_config") or {}).get("deepspeed_multinode_launcher")
    if values["distributed_type"] == "DEEPSPEED" and starter != "standard":
        raise UserError(
            f"{file}: several machines under DeepSpeed need deepspeed_multinode_launcher: standard below "
            "deepspeed_config:, so that every machine starts its own ranks; add that line"
        )


def _count(file: Path, values: dict[str, Any], name: str) -> int:
    """A number of machines or processes; 0 when the file states none."""
    value = values.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(
            f"{file}: {name}: {value!r} is not a number of {name.removeprefix('num_')}; write one such as 2"
        )
    return value


@lru_cache(maxsize=1)
def count_gpus() -> int:
    """How many NVIDIA GPUs this process may use, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [part.strip() for part in visible.split(",")]
        return len(list(takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), named)))
    return len(gpu_names())


def gpu_names() -> tuple[str, ...]:
    """The names of this machine's NVIDIA GPUs as their driver gives them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    answer = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(line.partition(": ")[2].partition(" (UUID")[0] for line in lines)

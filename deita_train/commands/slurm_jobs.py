"""A plan as SLURM jobs: one for each stage, for a pass an array over its parts, each after the jobs that it reads."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deita_train.errors import UserError
from deita_train.plan import launch as launches
from deita_train.plan.cells import run_command, stage_command
from deita_train.plan.division import is_divided
from deita_train.plan.launch import Launch
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, planned_stages
from deita_train.stages.kinds import STAGE_KINDS

# Of each pass, where nobody says how many.
DEFAULT_PARTS = 16
_MARK = re.compile("@([A-Z_]+)@")
_SCRIPT = """\
#!/bin/bash
# The @COUNT@ stages of @RECIPE@ that are not made yet, as SLURM jobs. Save this as @FILE@,
# edit what stands before the first function, and start it from @FOLDER@, where SLURM's commands are:
#
#   bash @FILE@
#
# It submits the jobs and ends. Each begins once the jobs that it reads have succeeded. A pass is an array with a task
# for each part. A job whose process or node dies is requeued alone, three times; one that ends with code 2 has found a
# mistake, and what depends on it is cancelled. Once no job is left, the same line again continues: what is made ends
# at once, and a part computes only the batches that are missing.
set -euo pipefail
self="$(realpath "$0")"
cd @FOLDER_QUOTED@
logs=@LOGS@
# For every job: add --partition, --account and the like.
options=(--requeue --open-mode=append --time=24:00:00 --signal=B:TERM@900)
cpus=8 # of each process
# source /path/to/venv/bin/activate

submit() { # name, processes on each node, line, the jobs that it reads, options
  local name="$1" processes="$2" line="$3" read="$4" log="%x-%j.log"
  shift 4
  [[ "$*" != *--array=* ]] || log="%x-%A_%a.log"
  mkdir -p "$logs"
  sbatch --parsable --job-name="$name" --output="${logs//%/%%}/$log" --kill-on-invalid-dep=yes \\
    ${read:+--dependency=afterok:$read} --ntasks-per-node=1 --cpus-per-task=$((cpus * processes)) "${options[@]}" \\
    "$@" "$self" "$line" "$processes"
}

# What a job does with its line: near the time limit it leaves a checkpoint, if it trains, and is requeued.
work() { # line, processes on each node
  local line="$1" stopping="" code=0
  local threads=$((${SLURM_CPUS_PER_TASK:-1} / $2))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
  if ((${SLURM_JOB_NUM_NODES:-1} > 1)); then
    MAIN_PROCESS_IP="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
    export MAIN_PROCESS_IP MAIN_PROCESS_PORT=$((20000 + SLURM_JOB_ID % 20000))
    srun --kill-on-bad-exit=1 bash -c 'export MACHINE_RANK="$SLURM_NODEID"; eval "exec $0"' "$line" &
  else
    bash -c "exec $line" &
  fi
  local step=$!
  trap 'stopping=yes; stop "$line" "$step"' TERM
  while true; do # a signal interrupts `wait`, not the step
    code=0
    wait "$step" || code=$?
    kill -0 "$step" 2>/dev/null || break
  done
  if [[ -n "$stopping" ]] || ((code != 0 && code != 2 && ${SLURM_RESTART_COUNT:-0} < 3)); then
    echo "requeued after code $code"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  exit "$code"
}

stop() { # line, process
  if [[ "$1" =~ @TRAININGS@ ]]; then
    touch @WORK@/"${BASH_REMATCH[1]}"/stop || true
  else
    kill -TERM "$2" 2>/dev/null || true
  fi
}

if (($# > 0)); then
  work "$@"
fi

@JOBS@
echo "submitted; logs: $logs"
"""


@dataclass(frozen=True)
class _Job:
    """One submission: its shell variable, what it does, and the variables of the jobs before it."""

    variable: str
    name: str
    line: str
    after: tuple[str, ...]
    processes: int = 1
    options: tuple[str, ...] = ()

    def text(self) -> str:
        read = ":".join(f"${variable}" for variable in self.after)
        words = [
            "submit",
            shlex.quote(self.name),
            str(self.processes),
            shlex.quote(self.line),
            f'"{read}"',
            *self.options,
        ]
        return f"{self.variable}=$({' '.join(words)})"


def slurm_jobs(plan: Plan, until: str | None, parts: int) -> str:
    """The text of a script that submits the stages which are not made yet.

    Args:
        plan: of the recipe, planned for the machines of the cluster.
        until: the last stage, for the run that writes the report.
        parts: of each pass.

    Raises:
        UserError: everything is made.
    """
    nodes = [stage.node for stage in planned_stages(plan) if stage.status != "done"]
    if not nodes:
        raise UserError(f"--slurm: all stages of {plan.loaded.path} are made; `{run_command(plan, until)}` reports.")
    name = plan.loaded.recipe.name
    jobs = [job for node in nodes for job in _jobs(plan, node, nodes, parts)]
    ends = tuple(_variable(nodes, node) for node in nodes)
    jobs.append(_Job("report", "report", run_command(plan, until), ends, 1, _gpus(_most_gpus(nodes))))
    kinds = "|".join(kind for kind, row in STAGE_KINDS.items() if row.trains)
    values = {
        "COUNT": str(len(nodes)),
        "RECIPE": str(plan.loaded.path),
        "FILE": f"{name}.slurm.sh",
        "FOLDER": str(Path.cwd()),
        "FOLDER_QUOTED": shlex.quote(str(Path.cwd())),
        "LOGS": shlex.quote(str(plan.run_dir / "slurm")),
        "TRAININGS": rf"--stage\ (({kinds})-[0-9a-f]+)",
        "WORK": shlex.quote(str(plan.store.folder / ".work")),
        "JOBS": "\n".join(job.text() for job in jobs),
    }
    return _MARK.sub(lambda found: values[found[1]], _SCRIPT)


def _jobs(plan: Plan, node: Node, nodes: list[Node], parts: int) -> Iterator[_Job]:
    """The jobs of one stage: its own, or its preparation and its parts."""
    planned = ("--gpus", str(launches.count_gpus() if plan.planned_gpus is None else plan.planned_gpus))
    variable = _variable(nodes, node)
    pending = {other.id for other in nodes}
    after = tuple(_variable(nodes, parent) for parent in node.parents.values() if parent.id in pending)
    launch = Launch.from_dict(node.runtime["launch"]) if "launch" in node.runtime else None
    if is_divided(node):
        assert launch is not None, node.label
        line = shlex.join(["deita-train", "stage", *plan.arguments(), "--stage", node.id, *planned])
        gpus = _gpus(0 if launch.use_cpu else 1)
        yield _Job(f"{variable}_prepared", f"{node.label}.prepare", f"{line} --part prepare", after, 1, gpus)
        part = f'{line} --part "$SLURM_ARRAY_TASK_ID/{parts}"'
        yield _Job(variable, node.label, part, (f"{variable}_prepared",), 1, (*gpus, f"--array=1-{parts}"))
        return
    line = stage_command(plan, node, *planned)
    if launch is None:
        yield _Job(variable, node.label, line, after)
        return
    processes = launch.num_processes // launch.num_machines
    machines = (f"--nodes={launch.num_machines}",)
    yield _Job(variable, node.label, line, after, processes, (*machines, *_gpus(0 if launch.use_cpu else processes)))


def _gpus(number: int) -> tuple[str, ...]:
    return (f"--gpus-per-node={number}",) if number else ()


def _most_gpus(nodes: list[Node]) -> int:
    """The GPUs of the largest launch on one machine: where the run reports, a GPU decides the precision of its plan."""
    found = [Launch.from_dict(node.runtime["launch"]) for node in nodes if "launch" in node.runtime]
    return max((launch.num_processes // launch.num_machines for launch in found if not launch.use_cpu), default=0)


def _variable(nodes: list[Node], node: Node) -> str:
    """A shell variable for the number of a stage's last job."""
    return f"job{[other.id for other in nodes].index(node.id) + 1}"

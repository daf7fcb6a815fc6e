"""recipes/slurm/multi_node.sbatch with two "nodes" on this machine: programs on PATH stand in for SLURM's own."""

import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest
from smoke_run import ROOT, SMOKE, run_environment, stages
from tiny_recipe import no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.cells import stage_commands
from deita_train.plan.launch import resolve_launch
from deita_train.run.runner import run_plan

SCRIPT = ROOT / "recipes" / "slurm" / "multi_node.sbatch"
# As SLURM does: the command once on each node, and after a failure of one none of the others goes on.
SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
while [[ "$1" == --* ]]; do
  [[ "$1" == --ntasks=* ]] && nodes="${1#--ntasks=}"
  shift
done
tasks=()
for ((node = 0; node < nodes; node++)); do
  SLURM_NODEID=$node "$@" &
  tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do
  wait -n || { code=$?; kill "${tasks[@]}" 2>/dev/null; break; }
done
exit $code
"""
SCONTROL = """#!/bin/bash
case "$1" in
  show) printf '%s\\n' ${SLURM_JOB_NODELIST//,/ } ;;
  *) echo "scontrol $*" >> "$CALLS" ;;
esac
"""
TWO_NODES = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 2
num_processes: 2
mixed_precision: 'no'
"""
# In the place of the real command: it prints the steps of the test, and writes down what else it is asked.
STUB = """#!/bin/bash
[[ "$1" == plan ]] && { cat "$STEPS"; exit; }
echo "deita-train $*" >> "$CALLS"
"""


def programs(folder, **scripts):
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, **scripts}.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


def python(module):
    return f'#!/bin/bash\nexec {sys.executable} -m {module} "$@"\n'


def free_job():
    """A job whose port, which follows from its number, nobody uses here."""
    while True:
        job = random.randrange(10**6, 10**7)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + job % 20000)) != 0:
                return str(job)


def submit(tmp_path, bin_dir, *arguments, job="4711", nodelist="127.0.0.1,localhost", **environment):
    """The script as SLURM starts it on the job's first node, still at work."""
    slurm = {"SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": nodelist, "SLURM_CPUS_PER_TASK": "1"}
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env={
            **run_environment(),
            **slurm,
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "STEPS": str(tmp_path / "steps"),
            **environment,
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.faults
def test_two_nodes_train_as_one_process_does(undisturbed, tmp_path):
    artefact = stages(undisturbed)["sft"]
    runs = tmp_path / "runs"
    shutil.copytree(undisturbed / "store", runs / "store")
    shutil.rmtree(runs / "store" / artefact)
    (tmp_path / "two_nodes.yaml").write_text(TWO_NODES)
    bin_dir = programs(
        tmp_path / "bin",
        deita_train=python("deita_train.cli"),
        accelerate=python("accelerate.commands.accelerate_cli"),
    )
    options = ["--set", f"sft.launch={tmp_path / 'two_nodes.yaml'}", "--until", "sft", "--runs", str(runs)]
    job = submit(tmp_path, bin_dir, str(SMOKE), *options, job=free_job())
    output, errors = job.communicate(timeout=250)
    assert job.returncode == 0, output + errors
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --nodelist=127.0.0.1,localhost" in call
    manifest = json.loads((runs / "store" / artefact / "manifest.json").read_text())
    assert (manifest["world_size"], manifest["distributed_type"], manifest["threads"]) == (2, "MULTI_GPU", 1)
    one, two = (json.loads((r / "store" / artefact / "metrics.json").read_text()) for r in (undisturbed, runs))
    losses = [[entry["loss"] for entry in metrics["history"]] for metrics in (one, two)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], atol=2e-3)
    assert (runs / "smoke" / "report" / "report.html").exists()


def steps(tmp_path, *lines):
    (tmp_path / "steps").write_text("".join(f"{line}\n" for line in lines))


def calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_only_launches_of_several_machines_are_started_on_them(tmp_path):
    bin_dir = programs(tmp_path / "bin", deita_train=STUB, accelerate='#!/bin/bash\necho "accelerate $*" >> "$CALLS"\n')
    many = '--num_machines 2 --machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_PROCESS_IP"'
    steps(
        tmp_path,
        "deita-train stage 'my recipe.yaml' --stage pool-0",
        "accelerate launch --num_processes 8 --main_process_port 0 -m deita_train.cli stage r --stage score-0",
        f'accelerate launch {many} --main_process_port "$MAIN_PROCESS_PORT" -m x --stage sft-0',
    )
    job = submit(tmp_path, bin_dir, "my recipe.yaml", nodelist="n1,n2,n3")
    output, errors = job.communicate(timeout=20)
    assert job.returncode == 0, output + errors
    first, second, srun, *rest = calls(tmp_path)
    assert first == "deita-train stage my recipe.yaml --stage pool-0"
    assert second.endswith("--stage score-0") and "--nodelist=n1,n2 " in srun
    common = "--main_process_ip n1 --main_process_port 24711 -m x --stage sft-0"
    assert sorted(rest[:2]) == [f"accelerate launch --num_machines 2 --machine_rank {rank} {common}" for rank in (0, 1)]
    assert rest[2:] == ["deita-train run my recipe.yaml"]


def test_too_few_nodes_and_a_step_that_fails_end_the_job(tmp_path):
    bin_dir = programs(tmp_path / "bin", deita_train=STUB)
    steps(tmp_path, "accelerate launch --num_machines 3 -m x --stage sft-0")
    job = submit(tmp_path, bin_dir, "r.yaml")
    assert "sft-0 wants 3 nodes, and the job has 2: sbatch --nodes=3" in job.communicate(timeout=20)[1]
    assert job.returncode == 2
    # One node fails, the other would wait for ever.
    steps(tmp_path, "bash -c '[[ $MACHINE_RANK == 1 ]] && exit 7; exec sleep 100' --num_machines 2 --stage sft-0")
    job = submit(tmp_path, bin_dir, "r.yaml")
    assert "step failed with 7" in job.communicate(timeout=20)[1]
    assert job.returncode == 7
    assert [call for call in calls(tmp_path) if call.startswith("deita-train")] == []


@pytest.mark.parametrize("kind", ["sft", "score"])
def test_near_the_time_limit_a_training_is_asked_to_stop_and_the_job_requeued(tmp_path, kind):
    bin_dir = programs(tmp_path / "bin", deita_train=STUB)
    work = tmp_path / "my runs" / "store" / ".work" / f"{kind}-0"
    work.mkdir(parents=True)
    # What a training does about the file; a pass is killed.
    steps(tmp_path, f'bash -c \'touch "$0/begun"; until [[ -e "$0/stop" ]]; do sleep 0.1; done\' "{work}" {kind}-0')
    job = submit(tmp_path, bin_dir, "r.yaml", "--runs", str(tmp_path / "my runs"))
    while not (work / "begun").exists():
        assert job.poll() is None
    job.terminate()
    output, errors = job.communicate(timeout=20)
    assert job.returncode == 0, output + errors
    assert calls(tmp_path) == ["scontrol requeue 4711"]
    assert (work / "stop").exists() == (kind == "sft")


@pytest.mark.usefixtures("no_gpus")
def test_a_launch_of_several_machines_promises_all_their_ranks_and_run_refuses_it(tmp_path):
    file = tmp_path / "two_nodes.yaml"
    file.write_text(TWO_NODES)
    made = plan(tmp_path, recipe(sft__launch=str(file)))
    node = made.cells[0].nodes["sft"]
    assert node.runtime["launch"]["num_processes"] == node.runtime["launch"]["num_machines"] == 2
    assert node.key == plan(tmp_path, recipe()).cells[0].nodes["sft"].key
    (line,) = [line for line in stage_commands(made) if line.endswith(f"--stage {node.id}")]
    variables = '--machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_PROCESS_IP" --main_process_port'
    assert f'--num_processes 2 --num_machines 2 {variables} "$MAIN_PROCESS_PORT" -m deita_train.cli stage' in line
    with pytest.raises(UserError, match=r"sft: .*two_nodes.yaml is for 2 machines"):
        run_plan(made, None)
    assert not made.run_dir.exists()


def test_the_shipped_launch_has_every_machine_start_its_own_ranks(tmp_path):
    file = SCRIPT.parents[2] / "accelerate_configs" / "zero3_2nodes.yaml"
    found = resolve_launch(str(file), 8)
    assert (found.num_processes, found.num_machines, found.distributed_type) == (16, 2, "DEEPSPEED")
    other = tmp_path / "zero3.yaml"
    other.write_text(file.read_text().replace("  deepspeed_multinode_launcher: standard\n", ""))
    with pytest.raises(UserError, match="deepspeed_multinode_launcher: standard below deepspeed_config"):
        resolve_launch(str(other), 8)

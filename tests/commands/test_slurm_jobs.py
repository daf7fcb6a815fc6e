"""The printed jobs, submitted to a stand-in for SLURM that keeps dependencies, arrays and requeues."""

import json
import os
import stat
import subprocess
import time
from collections import Counter
from contextlib import chdir
from unittest.mock import patch

import pytest
from part_stages import digest, write_recipe
from smoke_run import run_environment
from tiny_recipe import a_manifest, no_gpus, plan, recipe  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.slurm_jobs import slurm_jobs
from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.run.child.stage_process import run_stage

# A job runs when it is submitted, because those that it reads were submitted before; its end is kept in $STATE.
SBATCH = """#!/bin/bash
job=$(($(ls "$STATE" | wc -l) + 1)) array="" name=""
echo "$*" >> "$CALLS"
touch "$STATE/$job"
while [[ "$1" == --* ]]; do
  case "$1" in
    --array=1-*) array="${1#--array=1-}" ;;
    --job-name=*) name="${1#--job-name=}" ;;
    --dependency=afterok:*)
      IFS=: read -ra read <<< "${1#--dependency=afterok:}"
      for other in "${read[@]}"; do
        if [[ "$(cat "$STATE/$other")" != 0 ]]; then
          echo cancelled > "$STATE/$job"
          echo "$job"
          exit
        fi
      done
      ;;
  esac
  shift
done
end=0
for task in $(seq "${array:-1}"); do
  starts=0 code=0
  while true; do
    rm -f "$REQUEUED"
    code=0
    SLURM_JOB_ID="$job-$task" SLURM_ARRAY_TASK_ID="${array:+$task}" SLURM_RESTART_COUNT=$starts SLURM_CPUS_PER_TASK=1 \\
      bash "$@" < /dev/null >> "$OUTPUT" 2>&1 || code=$?
    [[ -e "$REQUEUED" ]] || break
    starts=$((starts + 1))
  done
  ((code == 0)) || end=$code
done
echo "$end" > "$STATE/$job"
echo "$job"
"""
SCONTROL = '#!/bin/bash\necho "scontrol $*" >> "$CALLS"\ntouch "$REQUEUED"\n'
# What it is asked is carried out in the test's own process, which has the libraries.
DEITA_TRAIN = """#!/bin/bash
printf '%s\\0' "$@" > "$ASKED/$$.writing"
mv "$ASKED/$$.writing" "$ASKED/$$.request"
while [[ ! -e "$ASKED/$$.code" ]]; do sleep 0.02; done
code=$(cat "$ASKED/$$.code")
rm "$ASKED/$$.code"
exit "$code"
"""


class Cluster:
    """Carries out a printed script; `fails` maps the name of a part, or a stage's id, to codes it ends with first."""

    def __init__(self, folder):
        self.folder, self.fails, self.asked, self.carries_out = folder, {}, [], True
        for name in ("bin", "state", "asked"):
            (folder / name).mkdir()
        for name, text in {"sbatch": SBATCH, "scontrol": SCONTROL, "deita-train": DEITA_TRAIN}.items():
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def submit(self, script):
        """The end of a script, as the user starts it."""
        path = self.folder / "jobs.slurm.sh"
        path.write_text(script)
        environment = run_environment() | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        files = {"STATE": "state", "CALLS": "calls", "OUTPUT": "output", "REQUEUED": "requeued", "ASKED": "asked"}
        environment |= {name: str(self.folder / file) for name, file in files.items()}
        submitting = subprocess.Popen(
            ["bash", str(path)],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 100
        try:
            while submitting.poll() is None:
                assert time.monotonic() < deadline
                for request in (self.folder / "asked").glob("*.request"):
                    self._answer(request)
                time.sleep(0.01)
        finally:
            submitting.kill()
        output = submitting.communicate()[0]
        assert submitting.returncode == 0, output
        return output

    def _answer(self, request):
        arguments = request.read_text().split("\0")[:-1]
        request.unlink()
        what = arguments[arguments.index("--part") + 1] if "--part" in arguments else arguments[-1]
        stage = arguments[arguments.index("--stage") + 1].partition("-")[0] if "--stage" in arguments else "run"
        self.asked.append((stage, what if "--part" in arguments else ""))
        codes = self.fails.get(self.asked[-1])
        code = codes.pop(0) if codes else self._carried_out(arguments) if self.carries_out else 0
        (self.folder / "asked" / f"{request.stem}.writing").write_text(str(code))
        (self.folder / "asked" / f"{request.stem}.writing").rename(request.with_suffix(".code"))

    def _carried_out(self, arguments):
        with patch.dict(os.environ, run_environment()), chdir(self.folder):
            answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == 0, answer.output
        return answer.exit_code

    def ends(self):
        """How the jobs ended, in the order of their submission."""
        files = sorted((self.folder / "state").iterdir(), key=lambda path: int(path.name))
        return [path.read_text().strip() for path in files]

    def requeued(self):
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith("scontrol")]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.fixture
def printed(tmp_path, processes):
    """A recipe with passes and a training, and what `plan --slurm` prints for it."""
    path = write_recipe(tmp_path)
    data = json.loads(path.read_text())
    del data["perplexity"], data["evaluate"]
    data["select"] = {"method": "deita", "score": "quality", "budget": 10, "threshold": 1.0}
    data["embedding"]["center"] = True  # so that it reads no scores
    path.write_text(json.dumps(data))

    def printed():
        with patch.dict(os.environ, run_environment()), chdir(tmp_path):
            answer = CliRunner().invoke(app, ["plan", str(path), "--runs", "my runs", "--slurm", "--parts", "3"])
        assert answer.exit_code == 0, answer.output
        return answer.output

    return printed


PARTS = ["prepare", "1/3", "2/3", "3/3"]


def test_the_jobs_make_the_whole_recipe_and_a_failed_part_runs_again_alone(cluster, printed, tmp_path):
    cluster.fails = {("embed", "2/3"): [137, 1]}
    cluster.submit(printed())
    assert cluster.ends() == ["0"] * 8
    assert cluster.asked == [
        ("pool", ""),
        *[("score", part) for part in PARTS],
        *[("embed", part) for part in ["prepare", "1/3", "2/3", "2/3", "2/3", "3/3"]],
        ("select", ""),
        ("sft", ""),
        ("run", ""),
    ]
    assert cluster.requeued() == ["scontrol requeue 5-2"] * 2
    assert (tmp_path / "my runs" / "parts" / "report" / "report.html").exists()
    run_stage(tmp_path / "recipe.json", [], tmp_path / "undivided", "pool")
    run_stage(tmp_path / "recipe.json", [], tmp_path / "undivided", "embed")
    assert digest(tmp_path / "recipe.json", tmp_path / "my runs", "embed") == digest(
        tmp_path / "recipe.json", tmp_path / "undivided", "embed"
    )


def test_a_mistake_ends_its_part_and_cancels_what_reads_it_until_the_script_is_started_again(cluster, printed):
    script = printed()
    cluster.carries_out = False
    cluster.fails = {("embed", "2/3"): [2], ("score", "1/3"): [9, 9, 9, 9]}
    cluster.submit(script)
    # In their order: pool; score's preparation and parts; embed's; select, sft and the report.
    assert cluster.ends() == ["0", "0", "9", "0", "2", "cancelled", "cancelled", "cancelled"]
    assert Counter(cluster.asked)["score", "1/3"] == 4 and Counter(cluster.asked)["embed", "2/3"] == 1
    cluster.submit(script)
    assert cluster.ends()[8:] == ["0"] * 8


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setattr(launch, "count_gpus", lambda: 8)
    launch.resolve_launch.cache_clear()
    yield
    launch.resolve_launch.cache_clear()


@pytest.mark.usefixtures("eight_gpus")
def test_the_options_of_the_jobs(tmp_path):
    two_nodes = tmp_path / "two.yaml"
    two_nodes.write_text("distributed_type: MULTI_GPU\nnum_machines: 2\nnum_processes: 16\n")
    made = plan(
        tmp_path, recipe("evaluate", sft__launch=str(two_nodes), sft__global_batch_size=16, embedding__rows="all")
    )
    lines = slurm_jobs(made, None, 64).splitlines()
    jobs = {line.split()[1]: line for line in lines if "=$(submit " in line}
    assert list(jobs)[-1] == "report" and len(jobs) == 10 + 3 + 1
    embed = next(number for number, node in enumerate(made.nodes, 1) if node.label == "embed")
    assert f'"$job{embed}_prepared" --gpus-per-node=1 --array=1-64)' in jobs["embed"]
    assert '--gpus 8 --part "$SLURM_ARRAY_TASK_ID/64"' in jobs["embed"]
    assert jobs["sft"].endswith(" --nodes=2 --gpus-per-node=8)") and "submit sft 8 'accelerate launch" in jobs["sft"]
    assert '--machine_rank "$MACHINE_RANK"' in jobs["sft"]
    assert "gpus-per-node" not in jobs["pool"] and jobs["pool"].endswith('"")')
    assert jobs["report"].endswith("--gpus-per-node=8)")


def test_the_script_is_bash(cluster, printed, tmp_path):
    (tmp_path / "script.sh").write_text(printed())
    assert subprocess.run(["bash", "-n", str(tmp_path / "script.sh")], check=False).returncode == 0


def test_near_the_time_limit_a_training_is_asked_for_a_checkpoint_and_the_job_requeued(cluster, printed, tmp_path):
    (tmp_path / "script.sh").write_text(printed())
    work = tmp_path / "my runs" / "store" / ".work" / "sft-0"
    work.mkdir(parents=True)
    variables = {"CALLS": str(tmp_path / "calls"), "REQUEUED": str(tmp_path / "requeued"), "SLURM_JOB_ID": "7"}
    variables["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    waiting = f"""bash -c 'until [[ -e "{work}/stop" ]]; do sleep 0.05; done; exit 143' --stage sft-0"""
    for line in (waiting, "sleep 30"):
        job = subprocess.Popen(
            ["bash", str(tmp_path / "script.sh"), line, "1"],
            env=run_environment() | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.5)
        job.terminate()
        assert job.communicate(timeout=20)[0].startswith("requeued after code ") and job.returncode == 0
    assert cluster.requeued() == ["scontrol requeue 7"] * 2


@pytest.mark.usefixtures("no_gpus")
def test_a_made_recipe_has_no_jobs_and_a_sweep_has_them_if_parts_are_asked_for(tmp_path):
    made = plan(tmp_path, recipe("evaluate", sweep={"select.budget": [5, 6]}))
    names = [line.split()[1] for line in slurm_jobs(made, None, 2).splitlines() if line.startswith("job")]
    assert Counter(names)["score.quality"] == 1 and Counter(names)["select"] == Counter(names)["sft"] == 3
    for node in made.nodes:
        made.store.work_path(node.id).mkdir(parents=True)
        made.store.publish(a_manifest(node, drops={}, rows_out=5), {})
    with pytest.raises(UserError, match=r"^--slurm: all stages of .* are made; `deita-train run "):
        slurm_jobs(made, None, 2)

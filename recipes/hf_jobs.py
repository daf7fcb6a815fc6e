# /// script
# requires-python = ">=3.11"
# ///
"""A recipe on rented hardware of HF Jobs: `deita-train run RECIPE`, with the run kept in a bucket of yours.

We have not run this script: it costs money and needs an account. From the checkout's folder, with a recipe in it:

    hf buckets create deita-runs
    hf jobs uv run --flavor a100-large --timeout 12h --attempts 3 --secrets HF_TOKEN \
      -v .:/project -v hf://buckets/USER/deita-runs:/kept recipes/hf_jobs.py recipes/quickstart.yaml

The first `-v` takes the checkout there, with its recipes and whatever data you put in it; Hub datasets and models need
nothing. Further words go to `deita-train run`, such as `--set select.budget=1000` or `--until select`. The job installs
the versions of constraints.txt by uv, with the optional parts that `-e DEITA_EXTRAS=eval,llm` names; rehearses the
recipe, unless it continues or `-e DEITA_REHEARSE=no` leaves that out; and carries it out.

The run works on the machine's own disk, because a mounted bucket promises neither locks nor renames. Every ten minutes,
and at the end, artefacts that have been made and the run's folder are copied to the bucket: the report is
runs/<name>/report there. An attempt that follows, or the same command another day, takes them from there and continues:
it loses the stage that was at work.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

PROJECT = Path("/project")
KEPT = Path("/kept/runs")
RUNS = Path("/tmp/runs")
VENV = Path("/tmp/venv")
MANIFEST = "manifest.json"
SECONDS_BETWEEN_COPIES = 600.0


def installation(project: Path, venv: Path, extras: str) -> list[list[str]]:
    """The command lines that install the checkout with the versions that its tests ran with."""
    wanted = f"{project}[{extras}]" if extras else str(project)
    constrained = ["--python", str(venv / "bin" / "python"), "--constraint", str(project / "constraints.txt")]
    return [["uv", "venv", "--python", "3.11", str(venv)], ["uv", "pip", "install", *constrained, wanted]]


def command(arguments: list[str], runs: Path) -> list[str]:
    """The command line of the run: a recipe, and further options."""
    return [str(VENV / "bin" / "deita-train"), "run", *arguments, "--runs", str(runs)]


def copy_runs(source: Path, target: Path) -> None:
    """Copy what `target` lacks of the artefacts, each with its manifest last, and the folders of the runs anew."""
    for artefact in source.glob(f"store/*/{MANIFEST}"):
        copied = target / "store" / artefact.parent.name
        if not (copied / MANIFEST).exists():
            shutil.copytree(artefact.parent, copied, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            shutil.copyfile(artefact, copied / MANIFEST)
    for run in source.iterdir() if source.exists() else ():
        if run.is_dir() and run.name != "store":
            # Links lead to models in the store, and would be copied as such.
            linked = [path.name for path in run.rglob("*") if path.is_symlink()]
            shutil.copytree(run, target / run.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*linked))


def main(arguments: list[str]) -> int:
    """Install, rehearse and carry out the run; its exit code."""
    # Stages start as `python -m`, which would find the mounted code before the installed one.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    for line in installation(PROJECT, VENV, os.environ.get("DEITA_EXTRAS", "")):
        subprocess.run(line, check=True)
    copy_runs(KEPT, RUNS)
    if not RUNS.exists() and os.environ.get("DEITA_REHEARSE", "yes") == "yes":
        rehearsal = [*command(arguments, RUNS), "--rehearse"]
        code = subprocess.run(rehearsal, cwd=PROJECT, env=environment, check=False).returncode
        if code:
            return code
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(SECONDS_BETWEEN_COPIES):
            copy_runs(RUNS, KEPT)

    keeping = threading.Thread(target=keep, daemon=True)
    keeping.start()
    code = subprocess.run(command(arguments, RUNS), cwd=PROJECT, env=environment, check=False).returncode
    ended.set()
    keeping.join()
    copy_runs(RUNS, KEPT)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

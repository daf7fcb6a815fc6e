# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.11,<3",
#   "transformers>=5.17,<6",
#   "trl>=1.16,<2",
#   "peft>=0.21,<1",
#   "accelerate>=1.15,<2",
#   "deepspeed>=0.19.8,<1; sys_platform == 'linux'",
#   "datasets>=5.2,<6",
#   "wandb>=0.31,<1",
#   "numpy>=2.2,<3",
#   "pyarrow>=22",
#   "scikit-learn>=1.8,<2",
#   "scipy>=1.15,<2",
#   "pydantic>=2.12,<3",
#   "ruamel.yaml>=0.19,<0.20",
#   "typer>=0.21,<1",
#   "rich>=14,<16",
#   "matplotlib>=3.10,<4",
#   "jinja2>=3.1,<4",
#   "safetensors>=0.6,<1",
#   "tokenizers>=0.22,<1",
#   "huggingface-hub>=1,<3",
#   "fsspec>=2025.3",
#   "zstandard>=0.25,<1",
#   "datasketch>=2,<3",
# ]
# ///
"""A recipe on rented hardware of HF Jobs: `deita-train run RECIPE`, with the run kept in a bucket of yours.

We have not run this script: it costs money and needs an account. From the checkout's folder, with a recipe in it:

    hf buckets create deita-runs
    hf jobs uv run --flavor a100-large --timeout 12h --attempts 3 --secrets HF_TOKEN \
      -v .:/project -v hf://buckets/USER/deita-runs:/kept recipes/hf_jobs.py recipes/quickstart.yaml

The first `-v` takes the checkout there, with its recipes and whatever data you put in it; Hub datasets and models need
nothing. Further words go to `deita-train run`, such as `--set select.budget=1000` or `--until select`.

The run works on the machine's own disk, because a mounted bucket promises neither locks nor renames. Every ten minutes,
and at the end, artefacts that have been made and the run's folder are copied to the bucket. An attempt that follows, or
the same command another day, takes them from there and continues: it loses the stage that was at work.
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
MANIFEST = "manifest.json"
SECONDS_BETWEEN_COPIES = 600.0


def command(arguments: list[str], runs: Path) -> list[str]:
    """The command line of the run: a recipe, and further options."""
    return [sys.executable, "-m", "deita_train.cli", "run", *arguments, "--runs", str(runs)]


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
    """Carry out the run; its exit code."""
    copy_runs(KEPT, RUNS)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(SECONDS_BETWEEN_COPIES):
            copy_runs(RUNS, KEPT)

    keeping = threading.Thread(target=keep, daemon=True)
    keeping.start()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    code = subprocess.run(command(arguments, RUNS), cwd=PROJECT, env=environment, check=False).returncode
    ended.set()
    keeping.join()
    copy_runs(RUNS, KEPT)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

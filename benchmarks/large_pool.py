"""A large pool through reading, scoring, embedding and selecting, with a model of one layer, as a run does it.

    python benchmarks/large_pool.py --rows 300000

makes a pool of short rows and a recipe in a folder of its own, carries out `deita-train run`, and prints for each
stage the seconds, those of its preparation, and the peak of the memory of the run's processes together (without mapped
files, shared pages once; the processes that wait hold some hundred MiB of libraries). `--folder` keeps everything, and
a second call goes on where the first one ended.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from memory import own_memory

_RECIPE = """name: large_pool
seed: 1
pool: {{dataset: {folder}/pool.jsonl}}
scorers:
  quality: {{model: {folder}/model, min_digit_mass: 0, dtype: float32}}
embedding: {{model: {folder}/model, chat_template: vicuna_v1.1, dtype: float32, center: true}}
select: {{method: deita, score: quality, budget: {kept}, threshold: 0.95, allow_fewer: true}}
"""


def main() -> None:
    """Carry out the run, and print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--words", type=int, default=80, help="words of a conversation; 80 are some 100 tokens")
    parser.add_argument("--note", type=int, default=1000, help="characters of a further column of each row")
    parser.add_argument("--kept", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "recipe.yaml").exists():
            make(folder, options.rows, options.words, options.note, options.kept)
        peaks = carry_out(folder)
        print_table(folder / "runs" / "store", peaks)


def make(folder: Path, num_rows: int, num_words: int, note: int, kept: int) -> None:
    """The pool, the model and the recipe."""
    from preparation import make_miniature, write_pool

    from deita_train.data.shipped_templates import shipped_template

    write_pool(folder / "pool.jsonl", num_rows, num_words, asks_one_in=3, note=note)
    make_miniature(folder / "model", shipped_template("vicuna_v1.1"))
    (folder / "recipe.yaml").write_text(_RECIPE.format(folder=folder, kept=kept), encoding="utf-8")


def carry_out(folder: Path) -> dict[str, int]:
    """Run the recipe; the peak of the memory while each artefact was being built, in bytes."""
    command = [sys.executable, "-m", "deita_train.cli", "run", str(folder / "recipe.yaml")]
    process = subprocess.Popen([*command, "--runs", str(folder / "runs")], stdout=sys.stderr)
    file = folder / "peaks.json"
    peaks: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    while process.poll() is None:
        built = [path.parent.name for path in (folder / "runs/store/.work").glob("*/progress.json")]
        used = own_memory(process.pid)
        for name in built:
            peaks[name] = max(peaks.get(name, 0), used)
        file.write_text(json.dumps(peaks))
        time.sleep(0.3)
    assert process.returncode == 0, "the run failed"
    return peaks


def print_table(store: Path, peaks: dict[str, int]) -> None:
    """A line for each stage that was carried out."""
    print("| stage | rows | seconds | of these, preparation | tokens | peak memory |\n|---|---:|---:|---:|---:|---:|")
    manifests = [json.loads(path.read_text()) for path in store.glob("*/manifest.json")]
    for manifest in sorted(manifests, key=lambda one: one["started"]):
        metrics = json.loads((store / manifest["id"] / "metrics.json").read_text())
        numbers = [manifest["rows_in"], manifest["wall_seconds"], metrics.get("preparation_seconds")]
        shown = ["" if number is None else f"{number:,.0f}" for number in [*numbers, metrics.get("tokens")]]
        peak = f"{peaks[manifest['id']] / 2**20:,.0f} MiB" if manifest["id"] in peaks else ""
        print(f"| {manifest['label']} | {' | '.join(shown)} | {peak} |")


if __name__ == "__main__":
    main()

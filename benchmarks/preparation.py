"""Reading and encoding large pools: rows per second, and the most memory that each stage takes without its model.

    python benchmarks/preparation.py --rows 10000 100000

makes a pool of that many rows in a folder of its own, runs the stages `pool`, `score` (its preparation alone) and
`embed` (the same) in processes of their own, and prints for each the seconds, the rows per second, and the peak of the
memory that is the stage's own: summed over its processes, pages that they share once (PSS, in
/proc/PID/smaps_rollup), without pages of mapped files, which the system takes back when it needs them.

`--one-process` encodes in one process, for the ratio.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from progress import add_time_limit, say

from deita_train.data.quickstart.vocabulary import WORDS

STAGES = ("pool", "score", "embed")


def main() -> None:
    """Measure every size, and print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the pools")
    parser.add_argument("--words", type=int, default=450, help="words of a conversation; 450 are some 600 tokens")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    add_time_limit(parser)
    options = parser.parse_args()
    if options.stage is not None:
        carry_out(*options.stage, one_process=options.one_process)
        return
    print("| rows | stage | seconds | rows/s | peak memory |\n|---|---|---|---|---|")
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            make_pool(Path(folder), num_rows, options.words)
            for stage in options.stages:
                seconds, peak = measured(stage, folder, one_process=options.one_process)
                rate = num_rows / seconds
                print(f"| {num_rows:,} | {stage} | {seconds:.1f} | {rate:,.0f} | {peak / 2**20:,.0f} MiB |", flush=True)


def make_pool(folder: Path, num_rows: int, num_words: int) -> None:
    """A file of conversations of one turn, and the folder of a miniature scorer."""
    say(f"a pool of {num_rows:,} rows")
    rng = random.Random(1)
    with (folder / "pool.jsonl").open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            words = rng.choices(WORDS, k=rng.randint(num_words // 2, num_words * 3 // 2))
            asked = len(words) // 4
            messages = [
                {"role": "user", "content": " ".join(words[:asked])},
                {"role": "assistant", "content": " ".join(words[asked:])},
            ]
            file.write(json.dumps({"id": f"row-{number}", "messages": messages}) + "\n")


def measured(stage: str, folder: str, *, one_process: bool) -> tuple[float, int]:
    """Seconds of a stage's own work, and the peak of its memory in bytes."""
    arguments = [sys.executable, __file__, "--stage", stage, folder, *(["--one-process"] if one_process else [])]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    peaks = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peaks), daemon=True)
    watch.start()
    answer, _ = process.communicate()
    assert process.returncode == 0, stage
    return float(answer.split()[-1]), peaks[0]


def _watch(pid: int, peaks: list[int]) -> None:
    while True:
        peaks[0] = max(peaks[0], sum(_own_memory(one) for one in _tree(pid)))
        time.sleep(0.2)


def _tree(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _own_memory(pid: int) -> int:
    """The process's proportional share of memory that no file holds, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def carry_out(stage: str, folder: str, *, one_process: bool) -> None:
    """One stage's work in this process; prints its seconds."""
    from deita_train.data import parallel
    from deita_train.data.builtin import builtin_conversations
    from deita_train.data.shipped_templates import shipped_template
    from deita_train.stages.context import Progress, StageContext
    from deita_train.stages.inference import embed, score
    from deita_train.stages.intake import pool
    from deita_train.training.miniature import make_model, train_tokenizer

    root = Path(folder)
    if one_process:
        parallel.num_processes = lambda: 1
    template = shipped_template("vicuna_v1.1")
    if not (root / "model").exists():
        rows = builtin_conversations("quickstart", 2000, 1)
        texts = (message["content"] for row in rows for message in row.row["messages"])
        tokenizer = train_tokenizer(texts, 2000, template, root / "model")
        shape = {"hidden_size": 64, "num_layers": 1, "num_heads": 4}
        make_model(tokenizer, **shape, context_length=2048, seed=1, folder=root / "model")
    source = {"format": None, "roles": {}, "instruction_share": None, "split": None}
    limits = {"dtype": "float32", "max_length": None, "max_length_limit": 2048}
    identity = {"sources": [source], "dimension": "quality", "chat_template": template, **limits}
    runtime = {
        "sources": [{"dataset": str(root / "pool.jsonl")}],
        "launch": {"use_cpu": True, "num_processes": 1, "distributed_type": "NO"},
        "max_batch_tokens": None,
        "max_unscored_share": 0.0,
        "section": stage,
    }
    parents = {} if stage == "pool" else {"pool": root / "pool", "model": root}
    context = StageContext(stage, stage, identity, runtime, parents, root / stage, 0, 1, Progress(None))
    context.prepared_dir.mkdir(parents=True)
    started = time.perf_counter()
    if stage == "pool":
        pool.run(context)
    else:
        {"score": score, "embed": embed}[stage].prepare(context)
    print(time.perf_counter() - started)
    os._exit(0)


if __name__ == "__main__":
    main()

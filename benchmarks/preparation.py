"""Reading and encoding large pools: rows per second, and the most memory that each stage takes without its model.

    python benchmarks/preparation.py --rows 10000 100000

makes a pool of that many rows in a folder of its own, carries out stages in processes of their own, whole but for the
model, in whose place numbers are made up, and prints for each the seconds, the rows per second, and the peak of the
memory that is the stage's own: summed over its processes, pages that they share once, without pages of mapped files,
which the system takes back when it needs them.

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
from collections.abc import Sequence
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from memory import own_memory
from progress import add_time_limit, say, time_limit

from deita_train.data.quickstart.vocabulary import WORDS

if TYPE_CHECKING:
    from deita_train.llm.client import Asker
    from deita_train.llm.ledger import Ledger
    from deita_train.stages.context import StageContext

STAGES = (
    "pool", "clean_pool", "lengths", "score", "embed", "perplexity", "select", "sft",
    "direct_score", "instag", "evolve", "rank",
)  # fmt: skip
PARENTS = {
    "pool": (),
    "select": ("pool", "embed", "quality"),
    "sft": ("data",),
    "evolve": ("seeds",),
    "rank": ("chains",),
}
# Another name than the stage's, where a stage reads an artefact under it.
FOLDERS = {"quality": "score", "data": "select", "seeds": "pool", "chains": "evolve"}
EVOLUTIONS = 2
KEPT = 1000
WIDTH = 256


def main() -> None:
    """Measure every size, and print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the pools")
    parser.add_argument("--words", type=int, default=450, help="words of a conversation; 450 are some 600 tokens")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    add_time_limit(parser)  # for each size
    options = parser.parse_args()
    if options.stage is not None:
        carry_out(*options.stage, one_process=options.one_process)
        return
    print("| rows | stage | seconds | rows/s | peak memory |\n|---|---|---|---|---|")
    for num_rows in options.rows:
        with time_limit(options.minutes), tempfile.TemporaryDirectory() as folder:
            make_pool(Path(folder), num_rows, options.words)
            for stage in options.stages:
                seconds, peak = measured(stage, folder, one_process=options.one_process)
                rate = num_rows / seconds
                print(f"| {num_rows:,} | {stage} | {seconds:.1f} | {rate:,.0f} | {peak / 2**20:,.0f} MiB |", flush=True)


def make_pool(folder: Path, num_rows: int, num_words: int) -> None:
    """A file of conversations of one turn, and the folder of a miniature scorer."""
    write_pool(folder / "pool.jsonl", num_rows, num_words, asks_one_in=4)


def write_pool(path: Path, num_rows: int, num_words: int, *, asks_one_in: int, note: int = 0) -> None:
    """A file of conversations of one turn.

    Args:
        path: of the file.
        num_rows: conversations.
        num_words: of one on average.
        asks_one_in: the instruction has one in so many of the words.
        note: characters of a further column that no stage reads; 0 for none.
    """
    say(f"a pool of {num_rows:,} rows")
    rng = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            words = rng.choices(WORDS, k=rng.randint(num_words // 2, num_words * 3 // 2))
            asked = len(words) // asks_one_in
            messages = [
                {"role": "user", "content": " ".join(words[:asked])},
                {"role": "assistant", "content": " ".join(words[asked:])},
            ]
            more = {"note": f"{number} ".ljust(note, "-")} if note else {}
            file.write(json.dumps({"id": f"row-{number}", "messages": messages, **more}) + "\n")


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
        peaks[0] = max(peaks[0], own_memory(pid))
        time.sleep(0.2)


def carry_out(stage: str, folder: str, *, one_process: bool) -> None:
    """One stage's work in this process; prints its seconds."""
    from deita_train.data import parallel

    if one_process:
        parallel.num_processes = lambda: 1
    context = stage_context(stage, Path(folder))
    started = time.perf_counter()
    work_on(context)
    print(time.perf_counter() - started)
    sys.stdout.flush()
    os._exit(0)


def work_on(context: "StageContext") -> None:
    """The work of a stage, without a model."""
    from deita_train.llm.client import Asker
    from deita_train.stages.asking import direct_score, evolve, instag, rank
    from deita_train.stages.inference import lengths
    from deita_train.stages.intake import clean_pool, pool
    from deita_train.stages.selecting import select
    from deita_train.stages.training import sft

    work = {
        "pool": pool.run,
        "clean_pool": clean_pool.run,
        "lengths": lengths.run,
        "score": score_by_number,
        "embed": embed_by_number,
        "perplexity": perplexity_by_number,
        "select": select.run,
        "sft": sft.prepare,
        "direct_score": direct_score.run,
        "instag": instag.run,
        "evolve": evolve.run,
        "rank": rank.run,
    }
    context.prepared_dir.mkdir(parents=True)
    with patch.object(Asker, "_ask_server", partialmethod(answer_by_key, context.kind)):
        work[context.kind](context)


def stage_context(stage: str, root: Path) -> "StageContext":
    """What the stage gets of a run, and the miniature model beside the pool."""
    from deita_train.data.shipped_templates import shipped_template
    from deita_train.evolve.operations import OPERATIONS
    from deita_train.evolve.prompts import read_prompts
    from deita_train.stages.context import Progress, StageContext

    template = shipped_template("vicuna_v1.1")
    make_miniature(root / "model", template)
    source = {"format": None, "roles": {}, "instruction_share": None, "split": None}
    limits = {"dtype": "float32", "max_length": None, "max_length_limit": 2048}
    identity = {"sources": [source], "dimension": "quality", "chat_template": template, "model": {}, **limits}
    if stage == "clean_pool":
        identity = {"deduplicate": {"exact": True, "near": 0.8}, "mix": None}
    if stage == "select":
        identity = {"method": "deita", "score": "quality", "threshold": 0.9, "budget": KEPT}
    if stage in ("direct_score", "instag", "evolve", "rank"):
        prompts = read_prompts("tags" if stage == "instag" else "complexity", None).texts
        identity = {
            "dimension": "complexity",
            "model": {"served": "judge"},
            "prompt": prompts.get({"instag": "tags"}.get(stage, stage)),
            "prompts": prompts,
            "operations": OPERATIONS["complexity"],
            "evolutions": EVOLUTIONS,
            "orders": 1,
            "ask_again": 0,
            "temperature": 0.0,
            "max_tokens": 64,
            "max_chars": 100_000,
            "min_count": 2,
            "similarity": 0.9,
            "heldout_share": 0.1,
            "seed": 0,
        }
    runtime = {
        "sources": [{"dataset": str(root / "pool.jsonl")}],
        "launch": {"use_cpu": True, "num_processes": 1, "distributed_type": "NO"},
        "max_batch_tokens": None,
        "max_unscored_share": 0.0,
        "min_digit_mass": 0.0,
        "allow_fewer": True,
        "section": stage,
        "answers": str(root / "answers"),
        "endpoint": {"name": "judge", "base_url": "http://localhost:1/v1", "model": "judge", "deadline_seconds": 1.0},
    }
    parents = {"model": root} | {name: root / FOLDERS.get(name, name) for name in PARENTS.get(stage, ("pool",))}
    return StageContext(stage, stage, identity, runtime, parents, root / stage, 0, 1, Progress(None))


def make_miniature(folder: Path, template: str) -> None:
    """A tokenizer, and a model of one layer, unless they are there."""
    from deita_train.data.builtin import builtin_conversations
    from deita_train.training.miniature import make_model, train_tokenizer

    if folder.exists():
        return
    rows = builtin_conversations("quickstart", 2000, 1)
    texts = (message["content"] for row in rows for message in row.row["messages"])
    tokenizer = train_tokenizer(texts, 2000, template, folder)
    shape = {"hidden_size": 64, "num_layers": 1, "num_heads": 4}
    make_model(tokenizer, **shape, context_length=2048, seed=1, folder=folder)


def score_by_number(context: "StageContext") -> None:
    """The stage `score` with numbers in place of a model's scores."""
    from deita_train.inference.row_file import RowFile
    from deita_train.stages.inference import score
    from deita_train.stages.inference.batched_pass import run_pass

    score.prepare(context)
    result = run_pass(context, None, _scores, ("score", "mass"))
    assert result is not None
    score._finish(context, RowFile(context.prepared_dir / score._PROMPTS), result, np.ones(1, np.float32), "cpu")


def embed_by_number(context: "StageContext") -> None:
    """The stage `embed` with random vectors."""
    from deita_train.stages.inference import embed
    from deita_train.stages.inference.batched_pass import run_pass
    from deita_train.stages.inference.embedding_table import Inputs, leave_embeddings

    embed.prepare(context)
    result = run_pass(context, None, _vectors, ("embedding",))
    assert result is not None
    leave_embeddings(context, Inputs.read(context), result, 2048, "cpu")


def perplexity_by_number(context: "StageContext") -> None:
    """The stage `perplexity` with numbers in place of a model's losses."""
    from deita_train.inference.row_file import LABELS, RowFile
    from deita_train.stages.inference import perplexity
    from deita_train.stages.inference.batched_pass import ROWS, TokenLosses, run_pass

    def losses(positions: Sequence[int]) -> dict[str, np.ndarray]:
        counts = [int((labels[1:] >= 0).sum()) for labels in rows.rows(positions, LABELS)]
        return {"loss": np.array(counts, np.float64), "tokens": np.array(counts, np.int64)}

    perplexity.prepare(context)
    rows = RowFile(context.prepared_dir / ROWS)
    result = run_pass(context, None, losses, ("loss", "tokens"))
    assert result is not None
    found = TokenLosses(result.columns["loss"], result.columns["tokens"], {}, "cpu")
    with patch.object(perplexity, "token_losses", lambda _: found):
        perplexity.run(context)


async def answer_by_key(asker: "Asker", kind: str, ledger: "Ledger") -> None:
    """Answers in place of a server's: a score, tags, a text or a ranking, by the request's key."""
    from deita_train.llm.answers import Answer

    for key, request in ledger.missing():
        number = int(key[:8], 16)
        rng, asked = random.Random(number), len(request.messages[0]["content"])
        text = {
            "direct_score": f'{{"score": {1 + number % 6}}}',
            "instag": json.dumps(rng.choices(WORDS, k=3)),
            "evolve": f"<evolved>{number} {' '.join(rng.choices(WORDS, k=asked // 12))}</evolved>",
            "rank": json.dumps({str(place + 1): 1 + (number >> place) % 6 for place in range(1 + EVOLUTIONS)}),
        }[kind]
        ledger.keep(key, request, Answer(text, "stop", 1, 1))


def _scores(positions: Sequence[int]) -> dict[str, np.ndarray]:
    numbers = np.asarray(positions, np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return {"score": (1 + 5 * numbers / (1 << 32)).astype(np.float32), "mass": np.ones(len(numbers), np.float32)}


def _vectors(positions: Sequence[int]) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(positions[0]).standard_normal((len(positions), WIDTH), np.float32)
    return {"embedding": numbers}


if __name__ == "__main__":
    main()

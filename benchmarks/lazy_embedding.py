"""Embedding only the rows that the Repr Filter's walk looks at, against embedding all, with the same selection.

    python benchmarks/lazy_embedding.py --small                seconds, a look at the form
    python benchmarks/lazy_embedding.py                        20,000 rows, some minutes
    python benchmarks/lazy_embedding.py --rows 300000 --budgets 10000 --folder /big/disk

A pool of generated conversations of 10 to 120 words, three rows in five of which are near copies of one of a few
hundred others, gets drawn scores; a LLaMA of 2 layers and 128 numbers with drawn weights embeds it. Each budget is
planned and carried out by the package's own stages, first with `embedding: {rows: all}` and then with `rows: walked`
in a store of its own. That both selections and both traces have equal digests is asserted. Columns:

- seen: rows that the walk decided on until the budget was full. No row after them is needed.
- embedded: rows that `walked` embedded: whole groups of 256 rows in the order of the walk, block by block.
- blocks: how often it embedded and went on.
- seconds: of the stage `embed`, preparation, model and walk included; in brackets those of the forward passes alone.

Threads: OMP_NUM_THREADS. The ratio of both columns is that of one run; other work beside it lengthens both.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from progress import add_time_limit, say, time_limit
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.plan.plan import Plan, make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.table import Table, numbers
from deita_train.training.miniature import train_tokenizer

_WORDS = 500
_SHARE_OF_COPIES = 0.6
_THRESHOLD = 0.9
# The words alone: what all rows share would make them all alike.
_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


@dataclass(frozen=True)
class Made:
    """A recipe carried out: the plan, and the metrics and seconds of its embedding and selection."""

    plan: Plan
    embedding: dict[str, Any]
    selection: dict[str, Any]
    seconds: float
    digest: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out each budget in both ways and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure embedding along the walk.")
    parser.add_argument("--small", action="store_true", help="a small pool, in seconds")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--budgets", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--folder", type=Path, help="where the runs go for a while (default: the system's)")
    add_time_limit(parser)
    options = parser.parse_args(arguments)
    rows, budgets = (1_500, [50]) if options.small else (options.rows, options.budgets)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {rows:,} rows; ", end="")
    print(f"load average {os.getloadavg()[0]:.1f} before the start\n")
    with time_limit(options.minutes), tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_inputs(folder, rows)
        whole = {}
        for budget in budgets:
            say(f"all rows, budget {budget}")
            whole[budget] = carry_out(folder, "all", budget, "all")
        lines = []
        for budget in budgets:
            say(f"walked, budget {budget}")
            walked = carry_out(folder, f"walked-{budget}", budget, "walked")
            assert walked.digest == whole[budget].digest, f"budget {budget}: another selection"
            lines.append((budget, whole[budgets[0]], walked))
    print(table(lines).markdown())


def write_inputs(folder: Path, rows: int) -> None:
    """The pool, its scores, and the model."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnoprstuvwy"), rng.integers(2, 9))) for _ in range(_WORDS)]
    origins = [_text(rng, words) for _ in range(max(1, rows // 40))]
    with (folder / "pool.jsonl").open("w") as pool, (folder / "scores.jsonl").open("w") as scores:
        for number in range(rows):
            text = _text(rng, words)
            if rng.random() < _SHARE_OF_COPIES:
                text = [*origins[rng.integers(len(origins))], words[rng.integers(_WORDS)]]
            half = len(text) // 3
            said = [{"role": "user", "content": " ".join(text[:half])}]
            said += [{"role": "assistant", "content": " ".join(text[half:])}]
            pool.write(json.dumps({"id": f"row-{number}", "messages": said}) + "\n")
            score = round(float(rng.uniform(1, 6)), 4)
            scores.write(json.dumps({"id": f"row-{number}", "quality_scores": [score]}) + "\n")
    (folder / "words.jinja").write_text(_TEMPLATE)
    tokenizer = train_tokenizer([" ".join(words)] * 2, 2_000, _TEMPLATE, folder / "model")
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape)).save_pretrained(folder / "model")


def _text(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    """A text of 10 to 120 words, short ones more often."""
    length = int(np.exp(rng.uniform(np.log(10), np.log(120))))
    return [words[number] for number in rng.integers(len(words), size=length)]


def carry_out(folder: Path, runs: str, budget: int, rows: str) -> Made:
    """Plan the recipe and carry out its stages in this process, in the store `runs`."""
    recipe = {
        "name": "lazy",
        "pool": {"dataset": str(folder / "pool.jsonl")},
        "scores": {"quality": str(folder / "scores.jsonl")},
        "embedding": {
            "model": str(folder / "model"),
            "chat_template": str(folder / "words.jinja"),
            "launch": "cpu",
            "pooling": "mean",
            "rows": rows,
        },
        "select": {"budget": budget, "score": "quality", "threshold": _THRESHOLD},
    }
    file = folder / f"{runs}-{budget}.yaml"
    file.write_text(json.dumps(recipe))
    plan = make_plan(file, [], folder / runs)
    with contextlib.redirect_stdout(io.StringIO()):
        for node in plan.nodes:
            run_stage(file, [], folder / runs, node.id)
    nodes = plan.cells[0].nodes
    embed, select = plan.store.manifest(nodes["embed"].id), plan.store.manifest(nodes["select"].id)
    metrics = plan.store.metrics(embed.id), plan.store.metrics(select.id)
    return Made(plan, *metrics, embed.wall_seconds, select.content_digest)


def table(lines: Sequence[tuple[int, Made, Made]]) -> Table:
    """A row for each budget."""
    titles = ("budget", "seen", "embedded", "of", "blocks", "seconds, walked", "seconds, all", "times faster")
    rows = [
        (
            f"{budget:,}",
            f"{walked.embedding['rows_seen']:,}",
            f"{walked.embedding['rows_embedded']:,}",
            f"{walked.embedding['rows']:,}",
            str(walked.embedding["blocks"]),
            _seconds(walked),
            _seconds(whole),
            f"{whole.seconds / walked.seconds:.1f}",
        )
        for budget, whole, walked in lines
    ]
    return Table(numbers(*titles), tuple(rows))


def _seconds(made: Made) -> str:
    return f"{made.seconds:.1f} ({made.embedding['seconds_computing']:.1f})"


if __name__ == "__main__":
    main()

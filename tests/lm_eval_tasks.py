"""Task files and data for lm-evaluation-harness, made in a folder, and a stage over them."""

import json
from pathlib import Path
from typing import Any

from deita_train.stages.context import Progress, StageContext

LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "answer",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
WORDS = ["river", "twelve", "I do not know", "Europe", "today", "name three", "the answer", "you"]


def choice_rows(number: int, first: int = 0) -> list[dict[str, Any]]:
    """Questions of different lengths with three choices each."""
    return [
        {
            "question": "Why? " * (index % 4) + f"Name {WORDS[index % 8]} number {index}, please.",
            "choices": [WORDS[(index * 3 + k) % 8] + "." * k for k in range(3)],
            "answer": index % 3,
        }
        for index in range(first, first + number)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def write_task(folder: Path, name: str, data: dict[str, str], **fields: Any) -> Path:
    """A task file in the folder, which reads local files; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": data},
        "test_split": "test",
        "metadata": {"version": 2.5},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(task))
    return path


def write_choice_task(folder: Path, name: str = "local_choice", rows: int = 7, **fields: Any) -> Path:
    """A multiple choice with examples to draw."""
    data = {
        "train": write_rows(folder / "data" / f"{name}_train.jsonl", choice_rows(5, 100)),
        "test": write_rows(folder / "data" / f"{name}.jsonl", choice_rows(rows)),
    }
    return write_task(folder, name, data, fewshot_split="train", **CHOICES, **fields)


def lm_eval_context(folder: Path, tasks: list[str], **changes: Any) -> StageContext:
    """A stage with the model of `folder/model`; `changes` go to its identity, or to its runtime."""
    identity = {
        "harness": "0.4.13", "tasks": tasks, "num_fewshot": None, "limit": None, "batch_size": 2, "seed": 1234,
        "chat_template": None, "dtype": "float32",
    }  # fmt: skip
    runtime = {"launch": LAUNCH, "section": "evaluate.lm_eval", "include": [], "data": {}}
    assert set(changes) <= set(identity) | set(runtime)
    identity |= {name: value for name, value in changes.items() if name in identity}
    runtime |= {name: value for name, value in changes.items() if name in runtime}
    work = folder / "work"
    (work / "prepared").mkdir(parents=True, exist_ok=True)
    progress = Progress(work / "progress.json")
    return StageContext("lm_eval", "lm_eval.sft", identity, runtime, {"model": folder}, work, 0, 1, progress)

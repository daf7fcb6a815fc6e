"""What the tests of the passes share: a miniature with its tokenizer, a table of conversations, a stage in this
process."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from deita_train.stages.context import Progress, StageContext, StageResult
from deita_train.training.miniature import train_tokenizer

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
_LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
_TEXTS = ["How are you today?", "Name three rivers of Europe, please.", "The answer is twelve.", "I do not know. " * 7]


def make_model(folder: Path, architecture: str = "llama", context_length: int = 1024) -> PreTrainedTokenizerBase:
    """Two layers with seeded weights, whose logits differ by units, and a byte-level tokenizer beside them."""
    tokenizer = train_tokenizer([*_TEXTS, "USER: ASSISTANT: ##Query: ##Quality: 123456"] * 3, 400, TEMPLATE, folder)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2,
        "max_position_embeddings": context_length, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(11)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape)).save_pretrained(folder)
    return tokenizer


def conversations(number: int) -> list[dict[str, Any]]:
    """Rows of one and of two turns, of lengths that differ."""
    rows = []
    for index in range(number):
        messages = []
        for turn in range(1 + index % 2):
            question = _TEXTS[(index + turn) % 4] + " Why?" * (index % 5)
            messages += [{"role": "user", "content": question}]
            messages += [
                {"role": "assistant", "content": f"{index}: " + _TEXTS[(index * 3 + turn) % 4] * (index % 3 + 1)}
            ]
        rows.append({"id": f"row-{index}", "messages": messages})
    return rows


def pass_context(kind: str, folder: Path, rows: Sequence[dict[str, Any]], **changes: Any) -> StageContext:
    """A stage over `rows` with the model of `folder/model`; `changes` go to its configuration or its settings."""
    parent = {"evaluate": "data"}.get(kind, "pool")
    if not (folder / parent).exists():
        datasets.Dataset.from_list(list(rows)).save_to_disk(str(folder / parent / "data"))
    config = {
        "chat_template": TEMPLATE,
        "max_length": None,
        "max_length_limit": 2048,
        "dtype": "float32",
        "dimension": "quality",
    }
    settings = {"launch": _LAUNCH, "max_batch_tokens": None, "max_unscored_share": 0.0, "min_digit_mass": 0.0}
    config |= {name: value for name, value in changes.items() if name in config}
    settings |= {name: value for name, value in changes.items() if name in settings}
    assert set(changes) <= set(config) | set(settings)
    parents = {parent: folder / parent, "model": folder}
    work = folder / "work"
    (work / "prepared").mkdir(parents=True, exist_ok=True)
    return StageContext(kind, kind, config, settings, parents, work, 0, 1, Progress(work / "progress.json"))


def carry_out(module: ModuleType, context: StageContext) -> tuple[dict[str, Any], StageResult]:
    """Prepare and run; the table's columns by name, with rows in order, and the result."""
    module.prepare(context)
    result = module.run(context)
    table = datasets.load_from_disk(str(context.data_dir))
    return {name: table[name] for name in table.column_names}, result

"""What a published model folder holds: weights, configuration, tokenizer and template, and nothing that is executed."""

import math
import shutil
from pathlib import Path

from safetensors import safe_open

# The tokenizer's original files are copied: saving a LLaMA or Mistral tokenizer again drops `legacy: true`, after which
# `</s>USER` becomes other tokens.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt",
)  # fmt: skip
TEMPLATE_FILE = "chat_template.jinja"
_MODEL_SUFFIXES = (".safetensors",)
_MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


def finish_model_folder(model_dir: Path, tokenizer_path: Path, chat_template: str | None) -> None:
    """Leave only the model's weights and configuration, add the tokenizer's original files and the chat template."""
    for path in model_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in _MODEL_FILES and path.suffix not in _MODEL_SUFFIXES:
            path.unlink()
    for name in TOKENIZER_FILES:
        if (tokenizer_path / name).exists():
            shutil.copyfile(tokenizer_path / name, model_dir / name)
    if chat_template is not None:
        (model_dir / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8")
    elif (tokenizer_path / TEMPLATE_FILE).exists():
        shutil.copyfile(tokenizer_path / TEMPLATE_FILE, model_dir / TEMPLATE_FILE)


def unexpected_files(model_dir: Path) -> list[str]:
    """Files that a published model must not hold."""
    allowed = {*TOKENIZER_FILES, TEMPLATE_FILE, *_MODEL_FILES}
    return sorted(p.name for p in model_dir.iterdir() if p.name not in allowed and p.suffix not in _MODEL_SUFFIXES)


def num_parameters(model_dir: Path) -> int:
    """How many numbers the saved weights hold, read from the files' headers alone."""
    total = 0
    for path in model_dir.glob("*.safetensors"):
        with safe_open(path, framework="np") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total

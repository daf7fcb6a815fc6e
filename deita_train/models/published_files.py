"""The files of a published model folder: weights (of a model or an adapter), configuration, tokenizer and template.

Nothing in it is executable.
"""

import json
import shutil
from pathlib import Path

from deita_train.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from deita_train.models.weight_shapes import INDEX, count_weights, shapes_in_folder

# The tokenizer's original files are copied: re-saving a LLaMA or Mistral tokenizer drops `legacy: true`, and then
# `</s>USER` becomes different tokens.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt",
)  # fmt: skip
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
_MODEL_FILES = ("config.json", "generation_config.json", INDEX)
_ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def finish_model_folder(model_dir: Path, tokenizer_path: Path, chat_template: str | None) -> None:
    """Keep only weights and configuration, then add the tokenizer's original files and the chat template."""
    for path in model_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not _is_model_file(path):
            path.unlink()
    copy_tokenizer(tokenizer_path, model_dir)
    if chat_template is not None:
        write_template(model_dir, chat_template)
    elif (tokenizer_path / TEMPLATE_FILE).exists():
        shutil.copyfile(tokenizer_path / TEMPLATE_FILE, model_dir / TEMPLATE_FILE)


def write_template(model_dir: Path, chat_template: str) -> None:
    """Write a chat template everywhere a reader may look for it.

    transformers prefers its own file, and llama.cpp's converter reads only tokenizer_config.json, in which the base's
    template would otherwise live on.
    """
    (model_dir / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8")
    path = model_dir / TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    config["chat_template"] = chat_template
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_tokenizer(tokenizer_path: Path, folder: Path) -> None:
    """Copy the tokenizer's original files, except its template."""
    for name in TOKENIZER_FILES:
        if (tokenizer_path / name).exists():
            shutil.copyfile(tokenizer_path / name, folder / name)


def unexpected_files(model_dir: Path) -> list[str]:
    """Names of files that a published model must not contain."""
    return sorted({path.name for path in model_dir.iterdir()} - {path.name for path in model_files(model_dir)})


def model_files(model_dir: Path) -> list[Path]:
    """The files in a folder that belong to the model: safetensors weights, configuration, tokenizer and template."""
    beside = {*TOKENIZER_FILES, TEMPLATE_FILE}
    return sorted(path for path in model_dir.iterdir() if path.name in beside or _is_model_file(path))


def _is_model_file(path: Path) -> bool:
    """Whether a file is part of the weights or configuration, of the adapter if the folder holds one."""
    if is_adapter(path.parent):
        return path.name in _ADAPTER_FILES
    return path.name in _MODEL_FILES or path.suffix == ".safetensors"


def num_parameters(model_dir: Path) -> int:
    """Number of saved parameters, from the files' headers."""
    return count_weights(shapes_in_folder(model_dir))

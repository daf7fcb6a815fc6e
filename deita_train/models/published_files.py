"""What a published model folder holds: weights, configuration, tokenizer and template, and nothing that is executed.

The weights are a whole model's, or an adapter's.
"""

import shutil
from pathlib import Path

from deita_train.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from deita_train.models.weight_shapes import INDEX, count_weights, shapes_in_folder

# The tokenizer's original files are copied: saving a LLaMA or Mistral tokenizer again drops `legacy: true`, after which
# `</s>USER` becomes other tokens.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt",
)  # fmt: skip
TEMPLATE_FILE = "chat_template.jinja"
_MODEL_FILES = ("config.json", "generation_config.json", INDEX)
_ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def finish_model_folder(model_dir: Path, tokenizer_path: Path, chat_template: str | None) -> None:
    """Leave only the model's weights and configuration, add the tokenizer's original files and the chat template."""
    for path in model_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not _is_model_file(path):
            path.unlink()
    copy_tokenizer(tokenizer_path, model_dir)
    if chat_template is not None:
        (model_dir / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8")
    elif (tokenizer_path / TEMPLATE_FILE).exists():
        shutil.copyfile(tokenizer_path / TEMPLATE_FILE, model_dir / TEMPLATE_FILE)


def copy_tokenizer(tokenizer_path: Path, folder: Path) -> None:
    """Copy the tokenizer's original files, without its template."""
    for name in TOKENIZER_FILES:
        if (tokenizer_path / name).exists():
            shutil.copyfile(tokenizer_path / name, folder / name)


def unexpected_files(model_dir: Path) -> list[str]:
    """Files that a published model must not hold."""
    return sorted({path.name for path in model_dir.iterdir()} - {path.name for path in model_files(model_dir)})


def model_files(model_dir: Path) -> list[Path]:
    """What belongs to a model in its folder: weights in safetensors, configuration, tokenizer and template."""
    beside = {*TOKENIZER_FILES, TEMPLATE_FILE}
    return sorted(path for path in model_dir.iterdir() if path.name in beside or _is_model_file(path))


def _is_model_file(path: Path) -> bool:
    """Whether a file belongs to the weights and configuration: of the adapter, where the folder holds one."""
    if is_adapter(path.parent):
        return path.name in _ADAPTER_FILES
    return path.name in _MODEL_FILES or path.suffix == ".safetensors"


def num_parameters(model_dir: Path) -> int:
    """How many numbers the saved weights hold, read from the files' headers alone."""
    return count_weights(shapes_in_folder(model_dir))

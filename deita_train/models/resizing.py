"""Tokens added to a model that lacks them: names in the tokenizer, rows in the embeddings that begin at the mean."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from deita_train.errors import UserError
from deita_train.models.model_limits import Vocabulary, vocabulary
from deita_train.models.published_files import TEMPLATE_FILE, TOKENIZER_CONFIG, copy_tokenizer

_TOKENIZER = "tokenizer.json"


def extend_tokenizer(source: Path, target: Path, names: Sequence[str]) -> None:
    """Write the tokenizer of `source` with these special tokens added to the folder `target`.

    The files are edited, not saved again by transformers, which would lose settings of some tokenizers.

    Raises:
        UserError: the tokenizer has no tokenizer.json.
    """
    sizes = vocabulary(source)
    if sizes is None:
        raise UserError(f"{source} has no tokenizer.json to which tokens could be added; save a fast tokenizer there.")
    target.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(source, target)
    if (source / TEMPLATE_FILE).exists():
        shutil.copyfile(source / TEMPLATE_FILE, target / TEMPLATE_FILE)
    added = [_added_token(name, sizes.tokens + place) for place, name in enumerate(names)]
    state = json.loads((target / _TOKENIZER).read_text(encoding="utf-8"))
    state["added_tokens"] = [*(state.get("added_tokens") or []), *added]
    _write(target / _TOKENIZER, state)
    config = json.loads((target / TOKENIZER_CONFIG).read_text(encoding="utf-8-sig"))
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] |= {str(token.pop("id")): token for token in added}
        _write(target / TOKENIZER_CONFIG, config)


def resize_model(source: Path, target: Path, sizes: Vocabulary, num_new: int) -> None:
    """Write the model of `source` with a row of the embeddings for each token to the folder `target`.

    Rows that are added, and those of the last `num_new` tokens, begin at the mean of the others, in the input
    embeddings and in the output head.

    Args:
        source: the model's folder.
        target: the new folder.
        sizes: the tokens of the tokenizer it will have, and the rows that the model has.
        num_new: how many of the tokens the model has never seen.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    if not sizes.fits:
        model.resize_token_embeddings(sizes.tokens, mean_resizing=False)
    first = min(sizes.rows, sizes.tokens - num_new)
    for layer in _layers(model):
        with torch.no_grad():
            old = layer.weight[:first].float().mean(dim=0)
            layer.weight[first : sizes.tokens] = old.to(layer.weight.dtype)
    model.save_pretrained(target)


def _layers(model: PreTrainedModel) -> list[Any]:
    """The input embeddings, and the output head where it has weights of its own."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is embeddings.weight
    return [embeddings] if tied else [embeddings, head]


def _added_token(name: str, token: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": name, **flags}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Seeded miniatures of models, for a rehearsal: the architecture of each, a few narrow layers and random weights.

Beside a miniature lies a shape: the model's own configuration and tokenizer without weights, which is all that planning
and trying a training read.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.adapter_files import is_adapter, locate_base
from deita_train.models.hub import hub_folder
from deita_train.models.known_models import KNOWN_MODELS, KnownModel
from deita_train.models.model_folder import check_model_folder
from deita_train.models.model_shape import causal_problem, whole_config
from deita_train.models.published_files import TEMPLATE_FILE, TOKENIZER_FILES, copy_tokenizer
from deita_train.models.stand_in_tokenizer import make_stand_in_tokenizer
from deita_train.models.tiny_copy import Sizes, small_config

# Dimensions of a head, and most tokens of a sliding window.
_HEAD, _WINDOW = 16, 64
_SEED = 21
_GENERATION = "generation_config.json"
# Of a model of the Hub: everything but its weights.
_SMALL_FILES = ["config.json", _GENERATION, TEMPLATE_FILE, *TOKENIZER_FILES]
_TOKENS = ("bos", "eos", "pad")
# In place of a model of which nothing is known.
_UNKNOWN = KnownModel(
    "llama",
    {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 32_000, "max_position_embeddings": 4096,
    },
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    adds_bos=True,
)  # fmt: skip


@dataclass(frozen=True)
class MadeModel:
    """What stands in for a model.

    Attributes:
        shape: the folder with its own configuration and tokenizer; None where the model itself can be planned with.
        miniature: the folder of the miniature.
        words: what the miniature is, for the account of a rehearsal.
    """

    shape: str | None
    miniature: str
    words: str


def make_miniature(
    name: str, commit: str | None, where: str, texts: Sequence[str], folder: Path, *, trust_code: bool
) -> MadeModel:
    """Make the miniature of a model.

    Args:
        name: the model's folder or Hub id.
        commit: of a Hub model; None where neither the Hub nor its cache answers, so that the table must do.
        where: the dotted path that names the model, for messages.
        texts: what a tokenizer is trained on where the model's own is not at hand.
        folder: where `shape/` and `miniature/` are written.
        trust_code: whether the recipe lets the model execute its own code, which is not done here.

    Raises:
        UserError: the folder holds no model that a stage could load.
    """
    shape, miniature = folder / "shape", folder / "miniature"
    for made in (shape, miniature):
        made.mkdir(parents=True)
    place = Path(name).expanduser()
    if trust_code:
        known, words = _UNKNOWN, "a small LLaMA with a tokenizer of its own: the model's own code is not executed"
    elif place.is_dir():
        return _of_files(place, where, miniature, is_local=True)
    elif commit is not None:
        files = hub_folder(name, commit, where, allow=_SMALL_FILES)
        return _of_files(files, where, miniature, is_local=False)
    elif name in KNOWN_MODELS:
        known, words = KNOWN_MODELS[name], "{name}, its shape from the package's table, a tokenizer of few words"
    else:
        known, words = _UNKNOWN, "a small LLaMA with a tokenizer of its own: nothing is known here of the model"
    tokenizer = make_stand_in_tokenizer(known, texts, shape)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _TOKENS}
    AutoConfig.for_model(known.architecture, **known.shape, **ids).save_pretrained(shape)
    config = whole_config(shape)
    model = _small_model(config, Sizes(vocabulary=len(tokenizer), tokens=ids, window=_WINDOW, head=_HEAD), where)
    _save(model, shape, miniature)
    return MadeModel(str(shape), str(miniature), words.format(name=type(model).__name__) + _size(model))


def _of_files(files: Path, where: str, miniature: Path, *, is_local: bool) -> MadeModel:
    """The miniature of a model whose configuration and tokenizer are at hand."""
    if is_local and not is_adapter(files):
        check_model_folder(files)
    config = whole_config(files)
    problem = causal_problem(config)
    if problem is not None:
        raise UserError(f"{where}: {problem}")
    model = _small_model(config, Sizes(vocabulary=None, tokens={}, window=_WINDOW, head=_HEAD), where)
    _save(model, files, miniature)
    merged = ", its adapter left out" if is_adapter(files) else ""
    return MadeModel(None, str(miniature), f"{type(model).__name__} with its own tokenizer{merged}" + _size(model))


def _small_model(config: Any, sizes: Sizes, where: str) -> PreTrainedModel:
    """A model of a configuration made small, with weights drawn by a seed, once it has computed something.

    Raises:
        UserError: no smaller configuration of this architecture computes.
    """
    reason = ""
    for one in (sizes, replace(sizes, head=None), replace(sizes, narrow=False)):
        try:
            return _drawn(small_config(config, one))
        except Exception as error:  # whatever an architecture raises when its sizes do not go together
            raise_machine_fault(error, where)
            reason = reason or f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    raise UserError(
        f"{where}: no miniature of {config.model_type} could be made ({reason}), so that the recipe cannot be "
        "rehearsed. Name a small model of this family in its place for the rehearsal (--set)."
    )


def _drawn(config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():  # its own first weights, drawn with the global generator, are replaced
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(_SEED)
    with torch.inference_mode():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5, generator=draw)
        logits = model.eval()(input_ids=torch.arange(2, 8)[None], use_cache=False).logits
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("its logits are not finite")
    return model


def _save(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    """Save the model with the files of a tokenizer, and what they say of generation."""
    model.save_pretrained(folder)
    source = tokenizer
    if not (tokenizer / "tokenizer.json").exists() and is_adapter(tokenizer):
        base = locate_base(tokenizer)
        source = base.folder or hub_folder(base.hub, base.revision, str(tokenizer), allow=_SMALL_FILES)
    copy_tokenizer(source, folder)
    for name in (TEMPLATE_FILE, _GENERATION):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def _size(model: PreTrainedModel) -> str:
    number = sum(weight.numel() for weight in model.parameters())
    return f" ({number / 1e6:.1f}M weights)"

"""LoRA: peft's configuration, a dry run of it on a model without weights, and merging."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from deita_train.errors import UserError
from deita_train.inference.adapter_loading import load_adapter

_PROBE_TOKENS = 16
# As a share of the largest logit. Merging rounds every adapted weight once to the model's dtype.
_MERGE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def lora_config(fields: Mapping[str, Any]) -> LoraConfig:
    """Build peft's configuration for a causal language model.

    Raises:
        UserError: If peft rejects the fields.
    """
    try:
        return LoraConfig(task_type="CAUSAL_LM", **fields)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"peft: {error}") from error


def try_adapter(fields: Mapping[str, Any], model_path: Path, *, merge: bool) -> None:
    """Add an adapter to a weightless model of the same shape, to find mistakes before anything is trained.

    Args:
        fields: Fields of `LoraConfig`.
        model_path: The base model's folder.
        merge: Whether the adapter will be merged after training.

    Raises:
        UserError: If peft rejects the fields, if a name matches nothing (peft ignores it as long as another one
            matches), or if the adapter cannot be merged although `merge` is set.
    """
    config = lora_config(fields)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
        # Before the adapter is added, which renames and replaces some layers.
        modules = dict(model.named_modules())
        try:
            adapted = get_peft_model(model, config)
        except (ValueError, RuntimeError) as error:
            advice = f" {_linear_layers(modules)}" if "target" in str(error) else ""
            raise UserError(f"peft: {str(error).strip().rstrip('.')}.{advice}") from error
        _check_names(fields, modules, adapted)
        _check_head(adapted)
        if merge:
            _try_merge(adapted)


def merge_adapter(adapter: Path, model_dir: Path, dtype: str) -> float:
    """Merge an adapter into its base, loaded in `dtype`, and save the whole model to `model_dir`.

    Returns:
        The largest change to the logits of a few tokens.

    Raises:
        UserError: If the change is larger than rounding explains.
    """
    adapted = load_adapter(adapter, dtype)
    before = _probe(adapted)
    merged: PreTrainedModel = adapted.merge_and_unload()
    after = _probe(merged)
    difference = float((after - before).abs().max())
    limit = _MERGE_TOLERANCE[merged.dtype] * float(before.abs().max().clamp(min=1))
    if not difference <= limit:
        raise UserError(
            f"merging changed the model: its logits differ by up to {difference:.3g}, and rounding explains "
            f"{limit:.3g}. Leave merge_adapter: out, or adapt other layers."
        )
    merged.save_pretrained(model_dir)
    return difference


def _probe(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of a few tokens, float32 [T, V]."""
    vocabulary: int = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    ids = torch.linspace(0, vocabulary - 1, _PROBE_TOKENS).long()[None]
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids).logits[0].float()
    return logits


def _linear_layers(modules: Mapping[str, torch.nn.Module]) -> str:
    """List the layers that may be targeted, by the last part of their names, without the output head."""
    model = modules[""]
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = {
        name.rpartition(".")[2]
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    return (
        f"The linear layers of {type(model).__name__} are {', '.join(sorted(linear))}; state some of them as "
        "target_modules, or all-linear."
    )


def _check_names(fields: Mapping[str, Any], modules: Mapping[str, torch.nn.Module], adapted: PeftModel) -> None:
    for option in ("target_modules", "exclude_modules", "modules_to_save"):
        names = fields.get(option)
        strange = [name for name in names if not _ends(modules, name)] if isinstance(names, list) else []
        if strange:
            what = f"matches no module of {type(modules['']).__name__}. {_linear_layers(modules)}"
            raise UserError(f"peft.{option}: {', '.join(strange)} {what}")
    targeted: Any = adapted.base_model.targeted_module_names
    for option in ("rank_pattern", "alpha_pattern"):
        _refuse(option, [pattern for pattern in fields.get(option) or {} if not _matches(targeted, pattern)])
    layers = fields.get("layers_to_transform")
    numbers = [layers] if isinstance(layers, int) else layers or []
    _refuse("layers_to_transform", [n for n in numbers if not any(f".{n}." in name for name in targeted)])


def _ends(names: Iterable[str], wanted: str) -> bool:
    return any(name == wanted or name.endswith(f".{wanted}") for name in names)


def _matches(names: Iterable[str], pattern: str) -> bool:
    """Match a pattern as peft matches the keys of `rank_pattern` and `alpha_pattern`."""
    return any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)


def _refuse(option: str, strange: list[Any]) -> None:
    if strange:
        raise UserError(f"peft.{option}: {', '.join(map(str, strange))} matches no layer that gets an adapter.")


def _check_head(adapted: PeftModel) -> None:
    head = adapted.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        raise UserError(
            "peft.trainable_token_indices: the embedding shares its weight with the output head, and trl multiplies by "
            "the head's weight directly, without what is trained of single tokens. State modules_to_save: "
            "[embed_tokens] with ensure_weight_tying: true instead, or leave it out."
        )
    if isinstance(head, BaseTunerLayer):
        raise UserError(
            "peft.target_modules: the output head cannot have an adapter, because trl multiplies by its weight "
            "directly. Leave it out, or state it as modules_to_save."
        )


def _try_merge(adapted: PeftModel) -> None:
    tied = adapted.config.get_text_config().tie_word_embeddings
    if tied and isinstance(adapted.get_input_embeddings(), BaseTunerLayer):
        raise UserError(
            "peft.target_modules: the embedding shares its weight with the output head, and merging would change both. "
            "Leave it out, or leave merge_adapter: out."
        )
    try:
        adapted.merge_and_unload()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"peft: such an adapter cannot be merged ({error}). Leave merge_adapter: out.") from error

"""Loading an adapter onto its base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.adapter_files import ADAPTER_WEIGHTS, locate_base
from deita_train.models.hub import NOT_SAFETENSORS, hub_folder
from deita_train.models.remote_code import own_code

# peft takes a second to import, and few runs have adapters.
if TYPE_CHECKING:
    from peft import PeftModel


def base_folder(adapter: Path) -> Path:
    """A local folder with the adapter's base; a Hub base is downloaded at the commit that the adapter names."""
    base = locate_base(adapter)
    return base.folder or hub_folder(base.hub, base.revision, str(adapter), ignore=NOT_SAFETENSORS)


def load_adapter(adapter: Path, dtype: torch.dtype | str, trust_code: bool = False) -> PeftModel:
    """The base in `dtype` with the adapter active and unmerged, in evaluation mode on the CPU.

    Raises:
        UserError: the adapter does not fit its base, or some of its weights have no place there.
    """
    from peft import PeftModel

    base = base_folder(adapter)
    with own_code(base, trust_code):
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, use_safetensors=True, trust_remote_code=trust_code
        )
    try:
        adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
    except (ValueError, RuntimeError) as error:
        raise_machine_fault(error, adapter)
        raise UserError(f"the adapter {adapter} does not fit its base {base}: {error}") from error
    _check_weights(adapted, adapter, base)
    return adapted.eval()


def _check_weights(model: PeftModel, adapter: Path, base: Path) -> None:
    """peft ignores weights that it has no place for, and only warns about missing ones."""
    from peft import get_peft_model_state_dict

    own = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as weights:
        saved = set(weights.keys())
    # An adapted embedding is saved together with the base's weights.
    strange = {name for name in saved - own if ".base_layer." not in name}
    if own - saved or strange:
        example = min(own - saved or strange)
        raise UserError(
            f"the adapter {adapter} does not fit its base {base}: {len(own - saved)} of its weights are missing and "
            f"{len(strange)} have no place, for example {example}"
        )

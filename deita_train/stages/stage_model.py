"""Where a stage's model lies: in a parent artefact, in a local folder, or in the Hub's cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from deita_train.errors import UserError
from deita_train.inference.forward import load_model
from deita_train.models.adapter_files import ADAPTER_CONFIG, is_adapter
from deita_train.models.hub import NOT_SAFETENSORS, hub_folder
from deita_train.models.model_folder import check_model_folder
from deita_train.models.published_files import TEMPLATE_FILE, TOKENIZER_FILES
from deita_train.stages.context import StageContext


def model_path(context: StageContext) -> Path:
    """A local folder with the stage's model; a Hub model is downloaded at the commit of the plan."""
    if "model" in context.parents:
        return context.parents["model"] / "model"
    identity = context.config["model"]
    if "hub" not in identity:
        local = Path(context.settings["model"])
        if not is_adapter(local):
            check_model_folder(local, trusts_code(context.config))
        return local
    folder = hub_folder(identity["hub"], identity["revision"], context.label, ignore=NOT_SAFETENSORS)
    if is_adapter(folder):
        raise UserError(
            f"{context.label}: {identity['hub']} is an adapter. Download it, and name its folder, which then says in "
            f"{ADAPTER_CONFIG} which base it belongs to."
        )
    check_model_folder(folder, trusts_code(context.config))
    return folder


def load_stage_model(context: StageContext, device: torch.device, *, head: bool) -> PreTrainedModel:
    """The stage's model in its dtype, as `load_model` gives it."""
    trusted = trusts_code(context.config)
    return load_model(str(model_path(context)), context.config["dtype"], device, head=head, trust_code=trusted)


def trusts_code(config: Mapping[str, Any]) -> bool:
    """Whether the recipe lets the model of a stage execute code of its own; never one that the run made."""
    return bool(config.get("model", {}).get("trust_remote_code", False))


def tokenizer_path(identity: Mapping[str, Any], location: str, label: str) -> Path:
    """A local folder with the tokenizer of a model that is no artefact; of a Hub model no weights are downloaded."""
    if "hub" not in identity:
        return Path(location)
    files = ["config.json", TEMPLATE_FILE, *TOKENIZER_FILES, *(["*.py"] if identity.get("trust_remote_code") else [])]
    return hub_folder(identity["hub"], identity["revision"], label, allow=files)

"""A stage's model: in a parent artefact, a local folder, or the Hub's cache."""

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
from deita_train.models.model_shape import causal_problem, whole_config
from deita_train.models.published_files import TEMPLATE_FILE, TOKENIZER_FILES
from deita_train.stages.context import StageContext


def model_path(context: StageContext) -> Path:
    """A local folder with the stage's model, resized if asked for; a Hub model is downloaded at the planned commit."""
    source = _source_path(context)
    if not context.identity.get("resize"):
        return source
    from deita_train.stages.resized_model import resized_folder

    template = context.identity.get("chat_template")
    return resized_folder(source, context.prepared_dir / "resized", template, context.runtime["resizing"])


def _source_path(context: StageContext) -> Path:
    if "model" in context.parents:
        return context.parents["model"] / "model"
    identity = context.identity["model"]
    if "hub" not in identity:
        local = Path(context.runtime["model"])
        if not is_adapter(local):
            check_model_folder(local, trusts_code(context.identity))
        return local
    folder = hub_folder(identity["hub"], identity["revision"], context.label, ignore=NOT_SAFETENSORS)
    if is_adapter(folder):
        raise UserError(
            f"{context.label}: {identity['hub']} is an adapter. Download it and name its folder, whose "
            f"{ADAPTER_CONFIG} then says which base it belongs to."
        )
    check_model_folder(folder, trusts_code(context.identity))
    return folder


def load_stage_model(context: StageContext, device: torch.device, *, head: bool) -> PreTrainedModel:
    """The stage's model in its dtype, loaded by `load_model`.

    Raises:
        UserError: an output head is wanted of what is no causal language model.
    """
    trusted, folder = trusts_code(context.identity), model_path(context)
    problem = causal_problem(whole_config(folder)) if head and not trusted else None
    if problem is not None:
        raise UserError(f"{context.label}: {problem}")
    return load_model(str(folder), context.identity["dtype"], device, head=head, trust_code=trusted)


def trusts_code(identity: Mapping[str, Any]) -> bool:
    """Whether the stage's model may execute its own code; never true for a model made by the run."""
    return bool(identity.get("model", {}).get("trust_remote_code", False))


def tokenizer_path(identity: Mapping[str, Any], location: str, label: str) -> Path:
    """A local folder with the tokenizer of an outside model; of a Hub model no weights are downloaded."""
    if "hub" not in identity:
        return Path(location)
    files = ["config.json", TEMPLATE_FILE, *TOKENIZER_FILES, *(["*.py"] if identity.get("trust_remote_code") else [])]
    return hub_folder(identity["hub"], identity["revision"], label, allow=files)

"""Adapters in the training stages: checked before the training, merged after it."""

from pathlib import Path
from typing import Any

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.published_files import copy_tokenizer, finish_model_folder
from deita_train.stages.checks import check_tokenizer
from deita_train.stages.context import StageContext
from deita_train.stages.stage_model import model_path
from deita_train.store.atomic_io import remove_tree
from deita_train.training.end_of_turn import stop_at
from deita_train.training.lora import merge_adapter, try_adapter
from deita_train.training.sizes import trained_dtype


def check_adapter(context: StageContext) -> None:
    """Refuse an adapter that could not be created, merged or loaded again, before anything is trained."""
    if context.identity.get("peft") is None:
        return
    model, merge = model_path(context), context.identity["merge_adapter"]
    try_adapter(context.identity["peft"], model, merge=merge)
    if not merge:
        _check_tokenizer_alone(model, context.prepared_dir / "tokenizer")


def finish_adapter(context: StageContext) -> dict[str, Any]:
    """Merge the adapter into a full model if the recipe says so. Call in a process without a process group."""
    if not context.identity.get("merge_adapter"):
        return {}
    remove_tree(context.model_dir)
    difference = merge_adapter(adapter_dir(context), context.model_dir, trained_dtype(context.identity["trainer"]))
    finish_model_folder(context.model_dir, adapter_dir(context), None)
    end = load_tokenizer(str(context.model_dir)).eos_token_id
    if end is not None:
        stop_at(context.model_dir, [end])  # as trainers do with a whole model
    return {"merge_difference": difference}


def adapter_dir(context: StageContext) -> Path:
    """Where an adapter is kept until it is merged; it is not published."""
    return context.work_dir / "adapter"


def base_name(context: StageContext) -> tuple[str, str | None]:
    """How an adapter names its base: the folder and None, or the Hub id and the commit."""
    if "model" in context.parents:
        return str(model_path(context).resolve()), None
    identity = context.identity["model"]
    return (identity["hub"], identity["revision"]) if "hub" in identity else (context.runtime["model"], None)


def _check_tokenizer_alone(model: Path, folder: Path) -> None:
    """Some tokenizers are read with the help of the model's config.json, which an adapter's folder does not hold."""
    folder.mkdir()
    copy_tokenizer(model, folder)
    try:
        check_tokenizer(model, folder)
    except Exception as error:
        raise_machine_fault(error, folder)
        raise UserError(
            f"the tokenizer of {model} is not read rightly without the model's config.json, which is not beside an "
            f"adapter ({error}). State merge_adapter: true."
        ) from error

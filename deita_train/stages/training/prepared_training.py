"""Shared by the training stages: settings, the training itself, its metrics."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from deita_train.data.rendering import load_tokenizer
from deita_train.models.adapter_files import is_adapter, name_base
from deita_train.models.published_files import finish_model_folder, num_parameters
from deita_train.stages.architecture import is_untried
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.row_limit import stage_limit
from deita_train.stages.stage_model import model_path
from deita_train.stages.training.adapter_merge import adapter_dir, base_name
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.training.arguments import Kind, TrainingSettings
from deita_train.training.rows import RowCount
from deita_train.training.step_watch import RATES
from deita_train.training.trainer_run import TrainingOutcome, train

ROWS, COUNT = "rows", "count.json"
_AS_TEXT = "rows_as_text"


def write_count(context: StageContext, count: RowCount, as_text: int | None = None) -> None:
    """Write the preparation's counts beside the prepared rows; `as_text` of them were written as text."""
    beside = {} if as_text is None else {_AS_TEXT: as_text}
    write_json_atomically(context.prepared_dir / COUNT, {**vars(count), **beside})


def train_prepared(
    context: StageContext, model: Path, chat_template: str | None, kind: Kind = "sft"
) -> StageResult | None:
    """Train on the prepared rows and write a complete folder with the model or adapter; the result on rank 0."""
    left_dir = adapter_dir(context) if context.identity.get("merge_adapter") else context.model_dir
    tokenizer = load_tokenizer(str(model), chat_template)
    rows = datasets.load_from_disk(str(context.prepared_dir / ROWS))
    outcome = train(
        str(model),
        tokenizer,
        rows,
        training_settings(context, kind),
        context.work_dir / "checkpoints",
        left_dir,
        context.progress.update,
        context.log,
    )
    if context.rank != 0:
        return None
    finish_model_folder(left_dir, model, context.identity.get("published_template") or chat_template)
    if is_adapter(left_dir):
        name_base(left_dir, *base_name(context))
    count = read_json(context.prepared_dir / COUNT)
    limit = stage_limit(context, model)
    beyond = sum(limit.beyond_context(length) for length in rows["length"])
    drops = {**count["refused"], **{name: count[name] for name in ("without_loss", "held_out") if count[name]}}
    return StageResult(
        rows_in=count["rows"] + sum(drops.values()),
        rows_out=count["rows"],
        drops=drops,
        metrics={**_metrics(outcome, count), "rows_beyond_context": beyond, **_sizes(left_dir, model)},
        device="cpu" if context.use_cpu else "cuda",
    )


def training_settings(context: StageContext, kind: Kind) -> TrainingSettings:
    """The component's plain settings from a stage's configuration, for the ranks that have started."""
    settings = settings_of(context.identity, context.runtime, kind)
    return replace(
        settings,
        world_size=context.world_size,
        distributed_type=context.distributed_type,
        check_logits="model" in context.identity and is_untried(model_path(context)),
    )


def settings_of(identity: Mapping[str, Any], runtime: Mapping[str, Any], kind: Kind) -> TrainingSettings:
    """The component's plain settings from a node's configuration, for the ranks that its launch promises."""
    launch = runtime["launch"]
    return TrainingSettings(
        trainer={**identity["trainer"], **runtime["trainer"]},
        global_batch_size=identity["global_batch_size"],
        seed=identity["seed"],
        world_size=launch["num_processes"],
        distributed_type=launch["distributed_type"],
        use_cpu=launch["use_cpu"],
        kind=kind,
        peft=identity.get("peft"),
        loss=identity.get("loss", "per_token"),
        packing=runtime["packing"],
        checkpoint_minutes=runtime["checkpoint_minutes"],
        quantization=identity.get("quantization"),
        mixed_precision=identity.get("mixed_precision"),
    )


def _sizes(left_dir: Path, model: Path) -> dict[str, int]:
    """The number of trained parameters and, for an adapter, of frozen ones."""
    frozen = {"frozen_parameters": num_parameters(model)} if is_adapter(left_dir) else {}
    return {"parameters": num_parameters(left_dir), **frozen}


def _metrics(outcome: TrainingOutcome, count: dict[str, Any]) -> dict[str, Any]:
    return {
        "history": outcome.history,
        "steps": outcome.steps,
        "train_rows": count["rows"],
        "train_tokens": count["tokens"],
        "loss_tokens": count["loss_tokens"],
        "rows_truncated": count["truncated"],
        "rows_without_loss": count["without_loss"],
        "rows_without_loss_ids": count["without_loss_ids"],
        **({_AS_TEXT: count[_AS_TEXT]} if _AS_TEXT in count else {}),
        "resumed_from_step": outcome.resumed_from,
        "micro_batch": outcome.micro_batch,
        **{name: outcome.rates.get(name) for name in RATES},
    }

"""From a recipe file and `--set` overrides to validated recipes, one per cell of its sweep."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deita_train.errors import UserError
from deita_train.recipe.model_sections import Training, Tuning
from deita_train.recipe.overrides import apply_overrides
from deita_train.recipe.peft_fields import check_peft
from deita_train.recipe.schema import Recipe
from deita_train.recipe.sweep import expand
from deita_train.recipe.trainer_fields import TrainerKind, check_trainer
from deita_train.recipe.validation import explain, report_problems
from deita_train.recipe.yaml_source import Positions, load_yaml

_PUSH = "`deita-train push` uploads a model and its card after the run"
# Trainer fields that the framework sets itself, and where the recipe states what they follow from.
OWNED_FIELDS: Mapping[str, str] = {
    "output_dir": "the store decides where a stage writes",
    "resume_from_checkpoint": "repeating the command resumes",
    "deepspeed": "state launch: zero2 or zero3 beside trainer:",
    "fsdp": "state launch: fsdp2 beside trainer:",
    "fsdp_config": "state launch: with a file of your own beside trainer:",
    "seed": "state seed: beside trainer:",
    "data_seed": "state seed: beside trainer:",
    "gradient_accumulation_steps": "it follows from global_batch_size: beside trainer:",
    "use_cpu": "state launch: cpu beside trainer:",
    "dataset_kwargs": "the data is prepared before the ranks start",
    "chat_template_path": "state chat_template: beside trainer:",
    "assistant_only_loss": "the loss is on assistant turns only",
    "completion_only_loss": "the loss is on assistant turns only",
    "push_to_hub": _PUSH,
    "hub_token": f"{_PUSH}, and a token has no place in a recipe",
    "hub_model_id": _PUSH,
    "hub_private_repo": _PUSH,
    "hub_strategy": _PUSH,
    "hub_always_push": _PUSH,
    "hub_revision": _PUSH,
    "save_strategy": "checkpoints are saved every save_steps",
    "save_total_limit": "the last two checkpoints are kept",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
    "ignore_data_skip": "a resumed run continues with the rows that were not seen",
    "auto_find_batch_size": "state per_device_train_batch_size",
    "accelerator_config": "state launch: with a file of your own beside trainer:",
    "eos_token": "the tokenizer's own ends a turn",
    "truncation_mode": "rows are cut on the right",
    "dataset_text_field": "rows are rendered by the chat template",
    "packing": "state packing: beside trainer: (of sft and of scorers)",
    "padding_free": "state packing: beside trainer: (of sft and of scorers)",
    "packing_strategy": "a packed row holds the conversations of one micro-batch",
    "eval_packing": "state evaluate: instead",
    "do_train": "a section that is there is carried out",
    "do_eval": "state evaluate: instead",
    "eval_strategy": "state evaluate: instead",
    "load_best_model_at_end": "there is no hidden held-out split to judge by",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "report_to": "state wandb: at the top of the recipe",
    "run_name": "a run of wandb is named after its stage; state wandb: at the top of the recipe",
    "project": "state wandb.project at the top of the recipe",
}


# What the reference log-probabilities, computed once by a stage of their own, leave no room for.
OWNED_DPO_FIELDS: Mapping[str, str] = {
    "precompute_ref_log_probs": "the reference log-probabilities are computed once and kept",
    "precompute_ref_batch_size": "state dpo.reference.max_batch_tokens",
    "sync_ref_model": "the reference is the model before DPO, and does not move",
    "ref_model_mixup_alpha": "the reference is the model before DPO, and does not move",
    "ref_model_sync_steps": "the reference is the model before DPO, and does not move",
    "ld_alpha": "the reference log-probabilities are summed over the whole answer",
    "pad_token": "the tokenizer's own pads",
    "padding_free": "trl does not offer it at present",
}


@dataclass(frozen=True)
class RecipeCell:
    """One validated variant of the recipe."""

    label: str
    settings: dict[str, Any]
    is_base: bool
    recipe: Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe file with its overrides applied: every cell, the recipe as written first."""

    path: Path
    sets: tuple[str, ...]
    cells: tuple[RecipeCell, ...]
    sweep_until: str | None

    @property
    def recipe(self) -> Recipe:
        """The recipe as written."""
        return self.cells[0].recipe


def load_recipe(path: Path, sets: Sequence[str] = ()) -> LoadedRecipe:
    """Read, override, expand and validate. Raises :class:`UserError` with file, line and dotted path."""
    data, positions = load_yaml(path)
    data = apply_overrides(data, sets)
    cells, until = expand(data, str(path))
    validated = []
    for cell in cells:
        suffix = "" if cell.is_base else f" (in the sweep's cell {cell.label})"
        # The recipe as written keeps its sweep, so that what is recorded of it is the whole of it.
        written = cell.data if not cell.is_base or "sweep" not in data else {**cell.data, "sweep": data["sweep"]}
        recipe = check_recipe(written, path, positions, sets, suffix)
        validated.append(RecipeCell(cell.label, cell.settings, cell.is_base, recipe))
    return LoadedRecipe(path, tuple(sets), tuple(validated), until)


def check_recipe(
    data: dict[str, Any], path: Path | str, positions: Positions | None, sets: Sequence[str] = (), suffix: str = ""
) -> Recipe:
    """Validate a recipe's data, sweep and `--set` already applied.

    Raises :class:`UserError` with a line for each problem: `path`, the line by `positions`, the dotted path, the text;
    `suffix` ends the last one.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problem = explain(error, model=Recipe, data=data, path=path, positions=positions, sets=sets)
        raise UserError(f"{problem}{suffix}") from None
    problems = [
        problem.split(": ", 1) for section, training in trainings(recipe) for problem in _check(section, training)
    ]
    if problems:
        located = [(dotted.split("."), text) for dotted, text in problems]
        raise UserError(str(report_problems(located, path=path, positions=positions, sets=sets)) + suffix)
    return recipe


def _check(section: str, training: Training) -> list[str]:
    kind: TrainerKind = "dpo" if section == "dpo" else "sft"
    problems = check_trainer(kind, training.trainer, where=f"{section}.trainer", owned=_owned(section))
    if isinstance(training, Tuning) and training.peft is not None:
        problems += check_peft(training.peft, where=f"{section}.peft")
    return problems


def _owned(section: str) -> Mapping[str, str]:
    if section == "sft":
        return OWNED_FIELDS
    if section == "dpo":
        return {**OWNED_FIELDS, **OWNED_DPO_FIELDS}
    return {**OWNED_FIELDS, "max_length": "state max_length: beside trainer:"}


def trainings(recipe: Recipe) -> Iterator[tuple[str, Training]]:
    """Every section of the recipe that trains, with its dotted path."""
    if recipe.base is not None:
        yield "base.pretrain", recipe.base.pretrain
    for dimension in ("complexity", "quality"):
        scorer = getattr(recipe.scorers, dimension) if recipe.scorers is not None else None
        if scorer is not None and scorer.train is not None:
            yield f"scorers.{dimension}.train", scorer.train
    if recipe.sft is not None:
        yield "sft", recipe.sft
    if recipe.dpo is not None:
        yield "dpo", recipe.dpo

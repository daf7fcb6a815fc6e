"""From a recipe file and `--set` overrides to validated recipes, one per cell of its sweep."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deita_train.errors import UserError
from deita_train.recipe.model_sections import RenderedLikeSft, Training, Tuning
from deita_train.recipe.overrides import apply_overrides, override_path
from deita_train.recipe.peft_fields import check_peft
from deita_train.recipe.report_sections import check_published
from deita_train.recipe.schema import Recipe
from deita_train.recipe.sweep import expand
from deita_train.recipe.trainer_fields import TrainerKind, check_trainer, refused_fields
from deita_train.recipe.validation import explain, report_problems
from deita_train.recipe.yaml_source import SHARED, Positions, load_yaml


@dataclass(frozen=True)
class RecipeCell:
    """One validated variant of the recipe: the base run, or one cell of its sweep."""

    label: str
    settings: dict[str, Any]
    is_base: bool
    recipe: Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe file with its overrides applied: every cell, the base run first."""

    path: Path
    sets: tuple[str, ...]
    cells: tuple[RecipeCell, ...]
    sweep_until: str | None
    positions: Positions

    @property
    def recipe(self) -> Recipe:
        """The recipe of the base run."""
        return self.cells[0].recipe

    def problem(self, where: str, message: str) -> UserError:
        """The error for what is wrong at a dotted path: with the file and the line, or the ``--set`` that wrote it."""
        return report_problems([(where.split("."), message)], path=self.path, positions=self.positions, sets=self.sets)


def load_recipe(path: Path, sets: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe, lay the overrides over it, expand its sweep and validate every cell.

    Args:
        path: The recipe's file.
        sets: The ``path=value`` of each ``--set``, in order.

    Raises:
        UserError: With file, line and dotted path of each problem.
    """
    data, positions = load_data(path, sets)
    return recipe_of(data, path, positions, sets)


def load_data(path: Path, sets: Sequence[str] = ()) -> tuple[dict[str, Any], Positions]:
    """Read a recipe as plain data with the overrides laid over it, unchecked; and the line of each key of the file.

    Raises:
        UserError: The file is no YAML of a recipe, or an override cannot be laid over it.
    """
    shared = [setting for setting in sets if setting.startswith(SHARED)]
    data, positions = load_yaml(path, {override_path(setting): setting.partition("=")[2] for setting in shared})
    return apply_overrides(data, [setting for setting in sets if setting not in shared]), positions


def recipe_of(data: dict[str, Any], path: Path, positions: Positions, sets: Sequence[str] = ()) -> LoadedRecipe:
    """Expand the sweep of a recipe's plain data and validate every cell; the arguments are as in `load_recipe`.

    Raises:
        UserError: With file, line and dotted path of each problem.
    """
    cells, until = expand(data, str(path))
    validated = []
    for cell in cells:
        suffix = "" if cell.is_base else f" (in the sweep's cell {cell.label})"
        # The base run keeps its sweep, so that the whole recipe is recorded with it.
        written = cell.data if not cell.is_base or "sweep" not in data else {**cell.data, "sweep": data["sweep"]}
        recipe = check_recipe(written, path, positions, sets, suffix)
        validated.append(RecipeCell(cell.label, cell.settings, cell.is_base, recipe))
    _check_published(validated, path, positions, sets)
    return LoadedRecipe(path, tuple(sets), tuple(validated), until, positions)


def _check_published(cells: Sequence[RecipeCell], path: Path, positions: Positions, sets: Sequence[str]) -> None:
    """Raise for published figures of unknown measures, or of no cell."""
    base = cells[0].recipe
    tasks = [
        task
        for cell in cells
        if cell.recipe.evaluate is not None and cell.recipe.evaluate.lm_eval is not None
        for task in cell.recipe.evaluate.lm_eval.tasks
    ]
    settings = [cell.settings for cell in cells if not cell.is_base]
    problems = [(_keys(dotted), text) for dotted, text in check_published(base.report, tasks, settings)]
    if problems:
        raise report_problems(problems, path=path, positions=positions, sets=sets)


def _keys(dotted: str) -> list[str | int]:
    return [int(key) if key.isdigit() else key for key in dotted.split(".")]


def check_recipe(
    data: dict[str, Any], path: Path | str, positions: Positions | None, sets: Sequence[str] = (), suffix: str = ""
) -> Recipe:
    """Validate a recipe's data, to which sweep and ``--set`` are applied already.

    Args:
        data: The recipe.
        path: Its file, as messages name it.
        positions: The line of each key of the file; None when there is no file.
        sets: The ``--set`` settings that are applied; a value that one of them states is reported under it.
        suffix: Ends the message.

    Raises:
        UserError: With a line for each problem: file, line, dotted path and text.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problem = explain(error, model=Recipe, data=data, path=path, positions=positions, sets=sets)
        raise UserError(f"{problem}{suffix}") from None
    recipe = _inherited(recipe)
    problems = [
        problem.split(": ", 1) for section, training in trainings(recipe) for problem in _check(section, training)
    ]
    if problems:
        located = [(dotted.split("."), text) for dotted, text in problems]
        raise UserError(str(report_problems(located, path=path, positions=positions, sets=sets)) + suffix)
    return recipe


def _inherited(recipe: Recipe) -> Recipe:
    """The recipe with what `dpo:` and `evaluate:` take over from `sft:`."""
    if recipe.sft is None:
        return recipe
    update: dict[str, RenderedLikeSft] = {}
    for name, section in (("dpo", recipe.dpo), ("evaluate", recipe.evaluate)):
        if section is not None and section.like(recipe.sft):
            update[name] = section.model_copy(update=section.like(recipe.sft))
    return recipe.model_copy(update=update) if update else recipe


def _check(section: str, training: Training) -> list[str]:
    kind: TrainerKind = "dpo" if section == "dpo" else "sft"
    problems = check_trainer(kind, training.trainer, where=f"{section}.trainer", refused=refused_fields(section))
    if isinstance(training, Tuning) and training.peft is not None:
        problems += check_peft(training.peft, where=f"{section}.peft")
    return problems


def models_are_swept(loaded: LoadedRecipe) -> bool:
    """Whether the cells train different models, or by different chat templates, so that each may lack other tokens."""
    started_from = {
        tuple(
            (name, *(getattr(training, field, None) for field in ("model", "revision", "chat_template")))
            for name, training in trainings(cell.recipe)
            if isinstance(training, Tuning)
        )
        for cell in loaded.cells
    }
    return len(started_from) > 1


def trainings(recipe: Recipe) -> Iterator[tuple[str, Training]]:
    """Yield every section of the recipe that trains, with its dotted path."""
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

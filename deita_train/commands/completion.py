"""What the shell offers at a tab: recipes, and the stages of one. Reads no data and builds no plan."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from deita_train.errors import UserError
from deita_train.recipe.shipped import find_recipe, shipped_recipes

_RECIPES = (".yaml", ".yml")


def recipe_files(incomplete: str) -> list[str]:
    """Recipes and folders that begin as typed, and shipped recipes once something is typed.

    Nothing where the shell's own completion does better: for a home folder (`~`), and for names with white space, which
    the shell would have to quote.
    """
    if incomplete.startswith("~"):
        return []
    found = sorted([*_beginning(incomplete), *(recipe_names(incomplete) if incomplete else [])])
    # After a single match a shell writes a space, so a single folder is opened.
    while len(found) == 1 and found[0].endswith("/"):
        found = sorted(_beginning(found[0]))
    return found


def recipe_names(incomplete: str) -> list[str]:
    """Names of shipped recipes that begin as typed."""
    return _matching(incomplete, shipped_recipes())


def stage_names(context: typer.Context, incomplete: str) -> list[str]:
    """Labels of the stages of the recipe that is typed already, once it has been started; else every kind of stage."""
    from deita_train.stages.kinds import STAGE_KINDS

    return _matching(incomplete, [label for label, _ in _recorded_stages(context)] or STAGE_KINDS)


def artefact_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the artefacts of the recipe that is typed already, once it has been started."""
    return _matching(incomplete, [artefact for _, artefact in _recorded_stages(context)])


def _beginning(typed: str) -> Iterator[str]:
    """Paths in the typed folder that begin with the typed name; folders end with a slash."""
    folder, slash, name = typed.rpartition("/")
    place = Path(f"{folder}{slash}" or ".")
    if not place.is_dir():
        return
    for entry in place.iterdir():
        is_folder = entry.is_dir()
        offered = entry.name.startswith(name) and (bool(name) or not entry.name.startswith("."))
        if offered and (is_folder or entry.suffix in _RECIPES) and not any(map(str.isspace, entry.name)):
            yield f"{folder}{slash}{entry.name}{'/' if is_folder else ''}"


def _matching(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(typed)]


def _recorded_stages(context: typer.Context) -> list[tuple[str, str]]:
    """Label and artefact of every stage in the record of the recipe's run; empty without one."""
    from deita_train.plan.plan import run_folder
    from deita_train.recipe.yaml_source import load_yaml
    from deita_train.store.run_record import RunRecord

    # An option without its value, which is being completed, keeps arguments from being assigned.
    typed = [context.params.get("recipe"), *(word for word in context.args if word.endswith(_RECIPES))]
    recipe, runs = next(filter(None, typed), None), context.params.get("runs") or "runs"
    if recipe is None:
        return []
    try:
        path = find_recipe(Path(recipe))
        name = load_yaml(path)[0].get("name")
        cells = RunRecord.read(run_folder(Path(runs), path, str(name))).cells
    except UserError:  # the command itself will say so
        return []
    return [stage for cell in cells for stage in cell.stages.items()]

"""The recipes that come with the package, by their names such as `quickstart` and `deita/deita-7b-v1.0`."""

import difflib
from pathlib import Path

from deita_train.errors import UserError
from deita_train.recipe.wording import either

_PACKAGE_DIR = Path(__file__).parent.parent
# In a checkout the files lie beside the package; in a wheel inside it.
_FOLDERS = (_PACKAGE_DIR.parent / "recipes", _PACKAGE_DIR / "recipes")
_MOST_NAMED = 3


def shipped_recipes() -> dict[str, Path]:
    """The file of each recipe by its name, sorted: its path below recipes/ without the suffix."""
    for folder in _FOLDERS:
        files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
        if files:
            return dict(sorted(files.items()))
    return {}


def name_of(path: Path) -> str | None:
    """The name of a shipped recipe by its file; None for another file."""
    resolved = path.resolve()
    return next((name for name, file in shipped_recipes().items() if file.resolve() == resolved), None)


def find_recipe(path: Path) -> Path:
    """The file that a command's argument means: the file itself, else the shipped recipe of that name.

    A path that is neither stays as it is, and reading it says so.
    """
    is_file = path.exists() and not path.is_dir()
    return path if is_file else shipped_recipes().get(path.as_posix(), path)


def shipped_recipe(name: str) -> Path:
    """The file of the shipped recipe of that name.

    Raises:
        UserError: There is none; names the nearest.
    """
    files = shipped_recipes()
    if name not in files:
        near = near_names(name)
        hint = f"did you mean {either(near)}?" if near else "`deita-train recipes` lists them."
        raise UserError(f"{name}: no recipe of that name comes with deita-train; {hint}")
    return files[name]


def near_names(name: str) -> list[str]:
    """Up to three names of shipped recipes that are most like a name; first those that it is a part of."""
    wanted = name.casefold().removeprefix("recipes/").removesuffix(".yaml")
    names = list(shipped_recipes())
    last_parts = {full.rpartition("/")[2]: full for full in names}
    holding = [full for full in names if len(wanted) > 2 and wanted in full]
    alike = difflib.get_close_matches(wanted, [*names, *last_parts], n=2 * _MOST_NAMED, cutoff=0.6)
    return list(dict.fromkeys([*holding, *(last_parts.get(one, one) for one in alike)]))[:_MOST_NAMED]


def files_of_yours(path: Path, field: str) -> str:
    """What helps where a file is missing that a shipped recipe names; empty for other recipes.

    Args:
        path: The recipe's file.
        field: The dotted path that names the missing file.
    """
    name = name_of(path)
    if name is None:
        return ""
    return f" State yours with --set {field}=PATH, or in a copy: deita-train recipes {name} > my.yaml"

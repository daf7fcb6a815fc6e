"""Reading a recipe's YAML file, and a value of the command line, by the rules of `yaml_text`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.recipe.shipped import near_names
from deita_train.recipe.wording import describe, either, nearest
from deita_train.recipe.yaml_text import KeyPath, StatedProblem, YamlProblem, read_yaml

# Keys at the top that begin so are no part of the recipe; they hold values with anchors.
SHARED = "x-"
_SUFFIXES = (".yaml", ".yml")


class Positions:
    """The 1-based line of every key and list item of a YAML file.

    A path holds keys and list indices from the top; a key that contains a dot (``select.budget`` in ``sweep``) is one
    element. A mapping's entry has the line of its key.
    """

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self._lines = dict(lines)

    def line(self, path: Sequence[str | int]) -> int | None:
        """Return the line of ``path``, else of its nearest ancestor that the file holds; None when there is none."""
        elements = tuple(map(str, path))
        ancestors = (elements[:length] for length in range(len(elements), -1, -1))
        return next((self._lines[ancestor] for ancestor in ancestors if ancestor in self._lines), None)


def load_yaml(path: Path, stated: Mapping[KeyPath, str] | None = None) -> tuple[dict[str, Any], Positions]:
    """Read the mapping in the YAML file ``path``.

    Args:
        path: The file.
        stated: What ``--set`` states of entries whose key begins with ``x-``, by path; aliases have these values too.

    Returns:
        The mapping as dict, list, str, int, float, bool and None, with text keys, and without entries whose key begins
        with ``x-``: those only hold what aliases share. And the line of each entry.

    Raises:
        UserError: The file is missing or unreadable, is not UTF-8, holds a tab, is not YAML 1.2, is not one mapping, or
            uses a tag, a repeated key or anchor, an alias without anchor or a number that a float cannot hold.
    """
    text = _read_text(path)
    try:
        data, lines = read_yaml(text, stated)
    except StatedProblem as problem:
        raise UserError(f"--set {problem}") from None
    except YamlProblem as problem:
        where = f"{path}:{problem.line}" if problem.line else f"{path}"
        raise UserError(f"{where}: {problem}") from None
    if not isinstance(data, dict):
        found = "the file is empty" if data is None else describe(data)
        raise UserError(f"{path}:{lines.get((), 1)}: {found}; a recipe is a mapping of sections")
    return {key: value for key, value in data.items() if not key.startswith(SHARED)}, Positions(lines)


def parse_value(text: str, *, source: str) -> Any:
    """Parse ``text`` as one YAML value by the rules of :func:`load_yaml`; empty text is None.

    Raises:
        UserError: The text is not one such value. The message begins with ``source``.
    """
    try:
        return read_yaml(text)[0]
    except YamlProblem as problem:
        raise UserError(f"{source}: {problem}") from None


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_near_files(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    if "\t" in text:
        line = text.count("\n", 0, text.index("\t")) + 1
        raise UserError(f'{path}:{line}: holds a tab; use spaces, and in quoted text write "\\t"')
    return text


def _near_files(path: Path) -> str:
    """Say which file in the folder of ``path``, or which shipped recipe, may have been meant."""
    is_folder = path.parent.is_dir()
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in _SUFFIXES) if is_folder else []
    near = nearest(path.name, names) or nearest(f"{path.name}.yaml", names)
    if near:
        return f" (did you mean {path.parent / near}?)"
    shipped = near_names(path.as_posix())
    if shipped:
        return f", nor a recipe that comes with deita-train (did you mean {either(shipped)}?)"
    if not is_folder:
        return f"; the folder {path.parent} does not exist either"
    return f"; recipes in {path.parent}: {', '.join(names[:10])}" if names else f"; {path.parent} holds no .yaml file"

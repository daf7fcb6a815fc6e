"""What the task files of lm-evaluation-harness in a folder read beside the folder: local data, and other task files."""

from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any


def files_outside(folder: Path) -> list[Path]:
    """The files outside the folder that its task files name, each once, in order.

    A file that is not there is left out, and so is a task file that cannot be read: the harness skips it too.
    """
    named = {path.resolve() for file in sorted(folder.rglob("*.yaml")) for path in _named(file)}
    return sorted(path for path in named if not path.is_relative_to(folder.resolve()))


def _named(file: Path) -> Iterator[Path]:
    """The files that a task file names, its included files' too."""
    values = _read(file)
    for name in _texts(values.get("include")):
        included = file.parent / name
        if included.is_file():
            yield included
            yield from _named(included)
    given = values.get("dataset_kwargs")
    kwargs = given if isinstance(given, dict) else {}
    for name in (
        *_texts(values.get("dataset_path")),
        *_texts(kwargs.get("data_dir")),
        *_texts(kwargs.get("data_files")),
    ):
        for found in sorted(glob(str(Path(name).expanduser()), recursive=True)):  # noqa: PTH207 - may be absolute
            path = Path(found)
            yield from (one for one in sorted(path.rglob("*")) if one.is_file()) if path.is_dir() else [path]


def _read(file: Path) -> dict[str, Any]:
    """A task file as plain data; `!function` and the like are left as they are."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.constructor.add_multi_constructor("!", lambda constructor, suffix, node: None)
    try:
        values = reader.load(file)
    except (YAMLError, UnicodeDecodeError):
        return {}
    return values if isinstance(values, dict) else {}


def _texts(value: Any) -> list[str]:
    """The texts in a value: itself, or those of a list or of a mapping's values."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]

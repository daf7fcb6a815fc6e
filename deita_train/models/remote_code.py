"""Models with their own Python code: executed only if the recipe says so."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deita_train.errors import UserError

_CONFIGS = ("config.json", "tokenizer_config.json")
_reported: set[Path] = set()


@contextmanager
def own_code(folder: Path | str, trusted: bool) -> Iterator[None]:
    """Context around loading a configuration, tokenizer or model from `folder` with `trust_remote_code=trusted`.

    If code is executed, one line of the log says whose.

    Raises:
        UserError: the model needs its own code and is not trusted, or its code is in another repository, whose version
            is not pinned.
    """
    folder = Path(folder)
    if trusted:
        _refuse_foreign(folder)
        _report(folder)
    try:
        yield
    except ValueError as error:
        # transformers has no exception class for this, only the message.
        if isinstance(error, UserError) or "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{folder} brings its own Python code, which is not executed unless the recipe says so. Read the code, "
            "then add the model's name, as the section has it, to trust_remote_code: at the top of the recipe "
            "(docs/remote_code.md). A training cannot start from such a model; choose another one there."
        ) from error


def _report(folder: Path) -> None:
    files = sorted(path.name for path in folder.glob("*.py"))
    if files and folder not in _reported:
        _reported.add(folder)
        sys.stdout.write(f"executing Python code of {folder} ({', '.join(files)}): the recipe trusts it\n")
        sys.stdout.flush()


def _refuse_foreign(folder: Path) -> None:
    for file in (folder / name for name in _CONFIGS):
        if not file.is_file():
            continue
        # A class is named module.Class or repository--module.Class; a tokenizer has two, or None.
        named = [name for entry in _auto_map(file) for name in (entry if isinstance(entry, list) else [entry]) if name]
        foreign = sorted({name.split("--")[0] for name in named if "--" in name})
        if foreign:
            raise UserError(
                f"{file}: the model's code is in another repository ({', '.join(foreign)}), for which no commit is "
                "pinned. Copy those files into the model's folder, and name them in auto_map without the repository."
            )


def _auto_map(file: Path) -> list[str | list[str | None] | None]:
    stated = json.loads(file.read_text(encoding="utf-8")).get("auto_map") or {}
    return list(stated.values()) if isinstance(stated, dict) else [stated]

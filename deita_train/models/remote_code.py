"""Models that bring Python code of their own: executed where the recipe says so, refused everywhere else."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deita_train.errors import UserError

_CONFIGS = ("config.json", "tokenizer_config.json")
_told: set[Path] = set()


@contextmanager
def own_code(folder: Path | str, trusted: bool) -> Iterator[None]:
    """Around what loads a configuration, a tokenizer or a model from `folder`; give `trusted` as trust_remote_code too.

    Where code is executed, one line of the log says whose. Raises :class:`UserError` when the model needs code of its
    own and is not trusted, or when its code lies in another repository, whose version nothing binds.
    """
    folder = Path(folder)
    if trusted:
        _refuse_foreign(folder)
        _tell(folder)
    try:
        yield
    except ValueError as error:
        # How transformers says it; there is no exception of its own for it.
        if isinstance(error, UserError) or "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{folder} brings Python code of its own, which is not executed unless the recipe says so. Read the code, "
            "then add the model's name, as the section has it, to trust_remote_code: at the top of the recipe "
            "(docs/remote_code.md). A training cannot start from such a model; choose another one there."
        ) from error


def _tell(folder: Path) -> None:
    files = sorted(path.name for path in folder.glob("*.py"))
    if files and folder not in _told:
        _told.add(folder)
        sys.stdout.write(f"executing Python code of {folder} ({', '.join(files)}): the recipe trusts it\n")
        sys.stdout.flush()


def _refuse_foreign(folder: Path) -> None:
    for file in (folder / name for name in _CONFIGS):
        if not file.is_file():
            continue
        # A class is named as module.Class, or repository--module.Class; a tokenizer has two, or None.
        named = [name for entry in _auto_map(file) for name in (entry if isinstance(entry, list) else [entry]) if name]
        foreign = sorted({name.split("--")[0] for name in named if "--" in name})
        if foreign:
            raise UserError(
                f"{file}: the model's code lies in another repository ({', '.join(foreign)}), of which no commit is "
                "bound. Copy those files beside the model, and name them in auto_map without the repository."
            )


def _auto_map(file: Path) -> list[str | list[str | None] | None]:
    stated = json.loads(file.read_text(encoding="utf-8")).get("auto_map") or {}
    return list(stated.values()) if isinstance(stated, dict) else [stated]

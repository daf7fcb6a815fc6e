"""A command's output path: checked before the work begins, written beside it, then renamed into place."""

import filecmp
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deita_train.data.suffixes import SUFFIXES, data_suffix
from deita_train.errors import UserError
from deita_train.store.atomic_io import fsync_folder, fsync_tree, remove_tree

# Files that identify a folder we wrote: only such a folder is ever replaced.
_TABLE_MARKS = ("state.json",)
_MODEL_MARKS = ("config.json", "adapter_config.json")
_HUB_DATASET_MARKS = ("data/train-00000-of-*.parquet",)


@dataclass(frozen=True)
class Output:
    """A place for a result.

    Attributes:
        path: the file or folder.
        suffix: one of ``SUFFIXES`` for a file, None for a folder.
        overwrite: whether an existing result may be replaced.
        marks: a folder is replaced only if it holds one of these files; they may be patterns.
    """

    path: Path
    suffix: str | None
    overwrite: bool
    marks: tuple[str, ...]

    @classmethod
    def for_rows(cls, name: str, overwrite: bool) -> "Output":
        """A table: a file by its suffix; a ``save_to_disk`` folder if there is no suffix or the name ends in "/".

        Raises:
            UserError: for another suffix, a missing parent folder, or something of another kind at that path.
        """
        path = Path(name).expanduser()
        suffix = None if name.endswith("/") else data_suffix(path.name)
        if suffix is None and path.suffix and not name.endswith("/"):
            raise UserError(
                f"--output {name}: a file ends in one of {', '.join(SUFFIXES)}; a folder has no suffix, or ends in '/'."
            )
        return cls(path, suffix, overwrite, _TABLE_MARKS)._checked()

    @classmethod
    def for_model(cls, name: str, overwrite: bool) -> "Output":
        """A model's folder.

        Raises:
            UserError: as ``for_rows`` does.
        """
        return cls(Path(name).expanduser(), None, overwrite, _MODEL_MARKS)._checked()

    @classmethod
    def for_hub_dataset(cls, name: str, overwrite: bool) -> "Output":
        """A folder as a dataset's repository on the Hub is.

        Raises:
            UserError: as ``for_rows`` does.
        """
        return cls(Path(name).expanduser(), None, overwrite, _HUB_DATASET_MARKS)._checked()

    def beside(self, ending: str) -> "Output":
        """A file next to this one: beside `kept.jsonl.gz`, `kept.compare.md` for ".compare.md".

        Raises:
            UserError: as ``for_rows`` does.
        """
        stem = self.path.name.removesuffix(self.path.name[-len(self.suffix) :] if self.suffix else "")
        return Output(self.path.with_name(f"{stem}{ending}"), ending, self.overwrite, ())._checked()

    def _checked(self) -> "Output":
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise UserError(f"--output {self.path}: the folder {folder} does not exist. Make it, or correct the path.")
        if not os.access(folder, os.W_OK):
            raise UserError(f"--output {self.path}: {folder} is not writable. Name another folder.")
        if self.path.exists():
            self._check_kind()
        return self

    def _check_kind(self) -> None:
        """Refuse to replace what ``overwrite`` does not cover."""
        if self.path.is_dir() != (self.suffix is None):
            found, wanted = ("folder", "file") if self.path.is_dir() else ("file", "folder")
            raise UserError(f"--output {self.path} is a {found}, and a {wanted} would be written. Give another name.")
        if self.path.is_dir() and not any(any(self.path.glob(mark)) for mark in self.marks):
            raise UserError(
                f"--output {self.path} is a folder without {' or '.join(self.marks)}: not one that this command "
                "replaces. Give another name."
            )

    def refuse_replacing(self) -> None:
        """Raise :class:`UserError` if something exists there and may not be replaced."""
        if self.path.exists() and not self.overwrite:
            raise UserError(f"--output {self.path} is there already. Give another name, or --overwrite to replace it.")

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a temporary path to write to; it is renamed to ``path`` at the end, or removed on an error.

        An existing result with the same bytes is left alone.

        Raises:
            UserError: something else exists, and ``overwrite`` is false.
        """
        place = self.path.absolute()
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
            if not _same_bytes(temporary, place):
                self.refuse_replacing()
                _move(temporary, place)
        finally:
            _remove(temporary)


def _move(temporary: Path, place: Path) -> None:
    """Sync the new content, then rename it into place; an existing folder is moved aside first."""
    if not temporary.is_dir():
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(place)
    else:
        fsync_tree(temporary)
        aside = temporary.with_suffix(".old")
        if place.exists():
            place.rename(aside)
        temporary.rename(place)
        remove_tree(aside)
    fsync_folder(place.parent)


def _remove(path: Path) -> None:
    remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _same_bytes(one: Path, other: Path) -> bool:
    ours, theirs = _files(one), _files(other)
    return ours.keys() == theirs.keys() and all(filecmp.cmp(ours[name], theirs[name], shallow=False) for name in ours)


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"": path}
    return {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}

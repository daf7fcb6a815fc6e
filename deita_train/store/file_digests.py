"""The digest of every file of an artefact, kept beside its manifest: they say which file was damaged."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from deita_train.store.atomic_io import read_json

FILE_DIGESTS = "digests.json"
# Logs are for people, and are not checked.
_CHECKED = ("metrics.json", "data", "trace", "model", "files")


def file_digests(folder: Path) -> dict[str, list[int | str]]:
    """For each file of an artefact's result its size in bytes and its SHA-256, by its path in the folder."""
    return {name: [(folder / name).stat().st_size, _sha256(folder / name)] for name in _checked_files(folder)}


def damaged_files(folder: Path) -> list[str] | None:
    """What is wrong with the files of an artefact: a line for each, beginning with its path in the folder.

    None for an artefact of an earlier version, which has no digests of its files.

    Raises:
        UserError: the list of digests itself was damaged.
    """
    if not (folder / FILE_DIGESTS).is_file():
        return None
    recorded: Mapping[str, list[int | str]] = read_json(folder / FILE_DIGESTS)
    there = set(_checked_files(folder))
    lines = {name: "is no file of this artefact" for name in there - recorded.keys()}
    for name, (size, digest) in recorded.items():
        if name not in there:
            lines[name] = "is missing"
        elif (found := (folder / name).stat().st_size) != size:
            lines[name] = f"has {found} bytes instead of {size}"
        elif _sha256(folder / name) != digest:
            lines[name] = "has other content than when it was published"
    return [f"{name} {lines[name]}" for name in sorted(lines)]


def _checked_files(folder: Path) -> Iterator[str]:
    for name in _CHECKED:
        if (folder / name).is_file():
            yield name
        for here, _, files in os.walk(folder / name):
            yield from sorted((Path(here) / file).relative_to(folder).as_posix() for file in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

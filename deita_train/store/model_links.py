"""Where a run's folder leads to its models: `runs/<name>/sft`, and `runs/<name>/cells/<cell>/sft` for a sweep's cells.

A link is a relative symbolic link to the model's folder in the store; on a file system without such links it is a text
file that names the folder. It is replaced in one rename once another model of its stage is there, and
removed once its own is gone.
"""

import errno
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from deita_train.store.atomic_io import write_text_atomically

# The stages whose models have links, by label.
LINKED = ("sft", "dpo")
CELLS = "cells"
_TEXT = "The model is in {}, seen from this folder.\n"
_OURS = re.compile(r".*/store/[^/]+/model")
_NO_LINKS_HERE = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_LONGEST_TEXT = 8192
# Longer names are refused by some file systems.
_LONGEST_NAME = 200


def cell_folders(labels: Iterable[str]) -> dict[str, str]:
    """Label -> name of the folder in `cells/`: the label itself, unless no file may be called so."""
    folders: dict[str, str] = {}
    for number, label in enumerate(labels, 1):
        name = label.replace("/", "_").replace("\0", "_").encode()[:_LONGEST_NAME].decode(errors="ignore")
        folders[label] = f"{name} ({number})" if name in {"", ".", "..", *folders.values()} else name
    return folders


def place_link(link: Path, model: Path) -> bool:
    """Let a link lead to a model's folder.

    Returns:
        Whether it does: not where something else has its name, which stays, or where there is no such folder.
    """
    if not model.is_dir() or not _is_free(link):
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    way = os.path.relpath(model.resolve(), link.parent.resolve())
    if link.is_symlink() and str(link.readlink()) == way:
        return True
    try:
        _replace_by_symlink(link, way)
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE:
            raise
        write_text_atomically(link, _TEXT.format(way))
    return True


def remove_link(link: Path) -> None:
    """Remove a link; what is not one stays."""
    if _is_free(link):
        link.unlink(missing_ok=True)


def remove_dead_links(run_dir: Path, without: Collection[str] = ()) -> None:
    """Remove the links of a run whose model is gone, and the folders of cells that are empty then.

    Args:
        run_dir: the run's folder.
        without: ids of artefacts whose models count as gone.
    """
    for link in links_of(run_dir):
        if artefact_of(link) in without or not (link.parent / _way(link)).is_dir():
            remove_link(link)
    for folder in [*(run_dir / CELLS).glob("*"), run_dir / CELLS]:
        with suppress(OSError):  # it is not empty, or no folder
            folder.rmdir()


def links_of(run_dir: Path) -> Iterator[Path]:
    """The links of a run that are there, those of the base run first."""
    for folder in [run_dir, *sorted((run_dir / CELLS).glob("*"))]:
        for label in LINKED:
            link = folder / label
            if os.path.lexists(link) and _is_free(link):
                yield link


def artefact_of(link: Path) -> str:
    """The id of the artefact to whose model a link leads."""
    return Path(_way(link)).parent.name


def _way(link: Path) -> str:
    """Where a link leads, seen from its folder."""
    if link.is_symlink():
        return str(link.readlink())
    begin, end = _TEXT.split("{}")
    return link.read_text(encoding="utf-8").removeprefix(begin).removesuffix(end)


def base_links(run_dir: Path) -> Mapping[str, Path]:
    """Label -> link of the base run's models."""
    return {link.name: link for link in links_of(run_dir) if link.parent == run_dir}


def _is_free(link: Path) -> bool:
    """Whether a name is free for a link: nothing has it, or a link of ours."""
    if link.is_symlink():
        return _OURS.fullmatch(str(link.readlink())) is not None
    if not link.exists():
        return True
    begin, end = (part.encode() for part in _TEXT.split("{}"))
    content = link.read_bytes() if link.is_file() and link.stat().st_size < _LONGEST_TEXT else b""
    return content.startswith(begin) and content.endswith(end)


def _replace_by_symlink(link: Path, way: str) -> None:
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.symlink_to(way, target_is_directory=True)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)

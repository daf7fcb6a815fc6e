"""Writing that survives a kill: a temporary file, fsync, then one rename."""

import json
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from deita_train.errors import UserError


def write_text_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    # A random name: processes of several machines may write here at once, and their ids can be equal.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # A failed write names no file, or only the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    fsync_folder(path.parent)


def write_json_atomically(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON. Non-finite floats are an error: JSON has none."""
    write_text_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file that we wrote.

    Raises:
        UserError: the file was damaged from outside.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove it and run again.") from error


def look_anew(folder: Path) -> None:
    """Make the folder if need be, and see in it what other machines wrote.

    A client of a network's file system may show a folder, or that a file is not there, as it was half a minute ago; a
    folder that it has just changed itself it reads anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(4)}.tmp"
    probe.touch()
    probe.unlink()


def fsync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Make every file below `path` durable, then the folders."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(folder))


def allow_reading(folder: Path, like: Path) -> None:
    """Let whoever may read or write the file `like`, made with the user's umask, do so with every file below `folder`.

    safetensors and others make files that their owner alone may read.
    """
    wanted = stat.S_IMODE(like.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode | wanted != mode:
                path.chmod(mode | wanted)


def remove_tree(path: Path) -> None:
    """Remove a folder if it is there."""
    if path.exists():
        shutil.rmtree(path)

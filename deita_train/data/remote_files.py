"""Files behind URLs (``s3://``, ``hf://``, ``https://``), through fsspec, which datasets uses too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from deita_train.data.places import chosen_files, is_pattern, require_suffix
from deita_train.errors import UserError, machine_fault, network_fault

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OURS = (UserError, AssertionError, MemoryError)
"""What is passed on as it is where everything else comes from a file system."""

# Under which of these a file system's `info` has a mark of a file's content.
_MARKS = ("ETag", "etag", "blob_id", "md5", "md5Hash", "content_md5", "checksum", "crc32c")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL."""

    url: str
    suffix: str
    system: "AbstractFileSystem"
    path: str

    def open(self) -> IO[bytes]:
        """Its bytes as a stream; parts are fetched as they are read, and none is kept on disk."""
        stream: IO[bytes] = self.system.open(self.path, "rb")
        return stream

    def state(self) -> list[Any]:
        """URL, size and a mark that changes with the content.

        The mark is the ETag, hash or blob id that fsspec's ``info`` gives; without one, it is fsspec's ``ukey``, a hash
        of all that ``info`` says. So a change is noticed as far as the file system tells of it: S3, Google Cloud, Azure
        and the Hub do; a web server without ETag does so only if the size changes.
        """
        info = self.system.info(self.path)
        mark = next((str(info[name]) for name in _MARKS if info.get(name)), None)
        return [self.url, info.get("size"), mark or self.system.ukey(self.path)]


def remote_files(url: str, data_files: Sequence[str] = (), split: str | None = None) -> list[RemoteFile]:
    """The files that a URL names: one, those that match a pattern, or the data files of a folder.

    Args:
        url: of a file, a pattern or a folder.
        data_files: patterns of files inside a folder.
        split: of files whose names tell it, in a folder.

    Raises:
        UserError: nothing is there or can be had, or it is not clear what is to be read.
    """
    try:
        return _found(url, data_files, split)
    except OURS:
        raise
    except Exception as error:  # each file system has its own
        raise url_error(url, error) from error


def file_states(files: Sequence[RemoteFile]) -> list[list[Any]]:
    """``RemoteFile.state`` of each file.

    Raises:
        UserError: the network or the server does not answer.
    """
    states = []
    for file in files:
        try:
            states.append(file.state())
        except OURS:
            raise
        except Exception as error:  # each file system has its own
            raise url_error(file.url, error) from error
    return states


def url_error(url: str, error: Exception) -> UserError:
    """Why a URL could not be read, and what to do."""
    if fault := machine_fault(error, url) or network_fault(error, url):
        return fault
    if isinstance(error, FileNotFoundError):
        return UserError(f"{url} does not exist. Correct the URL.")
    if isinstance(error, ImportError):
        return UserError(f"{url}: {error}")
    kind = type(error).__name__
    return UserError(
        f"{url}: fsspec cannot read it ({kind}: {error}); correct the URL, or download the file and name it"
    )


def _found(url: str, data_files: Sequence[str], split: str | None) -> list[RemoteFile]:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(url)
    if is_pattern(url):
        _refuse(url, "a pattern", data_files, split)
        return _files(system, "", chosen_files([], url, {url: system.glob(root)}, None))
    # Not isdir or exists, which take every failure for a no.
    if system.info(root)["type"] != "directory":
        _refuse(url, "a file", data_files, split)
        return [RemoteFile(url, require_suffix(_without_query(url), url), system, root)]
    folder = root.rstrip("/")
    matched = {pattern: _relative(system.glob(f"{folder}/{pattern}"), folder) for pattern in data_files}
    names = [] if matched else _relative(system.find(folder), folder)
    return _files(system, f"{folder}/", chosen_files(names, url, matched, split))


def _refuse(url: str, kind: str, data_files: Sequence[str], split: str | None) -> None:
    if data_files or split is not None:
        stated = "data_files" if data_files else "split"
        raise UserError(f"{url} is {kind} and has no {stated}: leave it out, or name the folder")


def _relative(paths: Sequence[str], folder: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in paths]


def _files(system: "AbstractFileSystem", folder: str, names: Sequence[str]) -> list[RemoteFile]:
    paths = [f"{folder}{name}" for name in names]
    return [RemoteFile(system.unstrip_protocol(path), require_suffix(path, path), system, path) for path in paths]


def _without_query(url: str) -> str:
    return url.partition("?")[0].partition("#")[0] if url.startswith(("http://", "https://")) else url

"""A file of rows as bytes and lines: local or behind a URL, compressed or not."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import zstandard

from deita_train.errors import UserError, machine_fault, network_fault

BROKEN_FILE = (OSError, EOFError, zlib.error, pa.ArrowException)
"""What reading a file may raise that is no fault of ours."""

# The longest window that zstd knows (--long=31).
_MAX_WINDOW = 2**31
_COMPRESSED_BLOCK = 2**14
_BUFFER = 2**18
_FIRST_BLOCK = 2**12
_TEXT_BLOCK = 2**20
_WIDE_MARKS = (
    # UTF-32's mark begins with UTF-16's.
    ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    ("UTF-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
# Which of the first four bytes are zero where a file without a mark begins with ASCII characters.
_WIDE_ZEROS: Mapping[tuple[bool, ...], str] = {
    (False, True, True, True): "UTF-32",
    (True, True, True, False): "UTF-32",
    (False, True, False, True): "UTF-16",
    (True, False, True, False): "UTF-16",
}


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        label: how messages name it.
        suffix: one of ``READ_SUFFIXES``.
        open: opens its bytes, compressed as they are.
        path: where it is on this machine; None behind a URL.
    """

    label: str
    suffix: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None


def unreadable(where: str, error: Exception) -> UserError:
    """Why a file could not be read: a fault of the machine or of the network is told as such, else it is damaged."""
    if fault := machine_fault(error, where) or network_fault(error, where):
        return fault
    if isinstance(error, FileNotFoundError):
        return UserError(f"{where}: there is no such file; it was removed, or is a link that leads nowhere")
    if isinstance(error, pa.ArrowNotImplementedError):
        return UserError(f"{where}: pyarrow cannot read this ({error}); write the file again in a simpler form")
    return UserError(f"{where}: cannot be read, damaged or incomplete ({error}); download or write the file again")


def text_lines(file: DataFile) -> Iterator[bytes]:
    """The lines of a text file, with their ends and without a byte order mark.

    Raises:
        UserError: with file and line, if the file cannot be read or is UTF-16 or UTF-32.
    """
    number = 0
    try:
        with _opened(file) as stream:
            _refuse_wide(stream.peek(4)[:4], file.label)
            for number, line in enumerate(stream, start=1):
                yield line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except BROKEN_FILE as error:
        raise unreadable(f"{file.label}:{number + 1}", error) from error


def first_character(file: DataFile) -> bytes:
    """The first byte of a text file after white space and a byte order mark; empty if there is none.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with _opened(file) as stream:
            while block := stream.read(_FIRST_BLOCK):
                if text := block.removeprefix(codecs.BOM_UTF8).lstrip():
                    return bytes(text[:1])
    except BROKEN_FILE as error:
        raise unreadable(file.label, error) from error
    return b""


def decoded_line(line: bytes, where: str) -> str:
    """A line as text.

    Raises:
        UserError: if it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from error


def text_blocks(file: DataFile) -> Iterator[str]:
    """A text file as pieces of text, without a byte order mark.

    Raises:
        UserError: with file and line, if the file cannot be read, is UTF-16 or UTF-32, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    try:
        with _opened(file) as stream:
            _refuse_wide(stream.peek(4)[:4], file.label)
            while True:
                # What one decompression gives: a fault behind it is told with its line.
                block = stream.read1(_TEXT_BLOCK)
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    line += error.object.count(b"\n", 0, error.start)
                    raise _not_utf8(f"{file.label}:{line}", error) from error
                if not block:
                    break
                line += text.count("\n")
                yield text
    except BROKEN_FILE as error:
        raise unreadable(f"{file.label}:{line}", error) from error


def whole_text(file: DataFile) -> str:
    """A text file as one text; raises as ``text_blocks`` does."""
    return "".join(text_blocks(file))


def _not_utf8(where: str, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{where}: not UTF-8: {error.reason}; convert the file to UTF-8")


@contextmanager
def _opened(file: DataFile) -> Iterator[Any]:
    """The uncompressed bytes as a stream with ``peek``."""
    with file.open() as raw:
        if file.suffix.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        elif file.suffix.endswith(".zst"):
            yield io.BufferedReader(_ZstdStream(raw), _BUFFER)
        else:
            yield raw if hasattr(raw, "peek") else io.BufferedReader(raw, _BUFFER)


def _refuse_wide(head: bytes, label: str) -> None:
    """Refuse a text whose characters have two or four bytes; ``head`` is its first four."""
    marked = next((name for name, marks in _WIDE_MARKS if head.startswith(marks)), None)
    encoding = marked or _WIDE_ZEROS.get(tuple(byte == 0 for byte in head))
    if encoding is not None:
        raise UserError(
            f"{label}: the file is {encoding}; convert it to UTF-8, for instance with iconv -f {encoding} -t UTF-8"
        )


class _ZstdStream(io.RawIOBase):
    """The content of zstd frames with windows of any length.

    Arrow's stream refuses windows beyond 128 MiB, and zstandard's own reader ends a truncated frame without an error.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._frame: Any = None  # the frame that is being read; None between two
        self._unread = b""  # compressed bytes behind the end of the last frame
        self._content = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with content; 0 at the end."""
        while not self._content:
            block = self._unread or self._raw.read(_COMPRESSED_BLOCK)
            if not block and self._frame is not None:
                raise EOFError("the file ends inside a zstd frame")
            if not block:
                return 0
            self._content = memoryview(self._decompressed(block))
        size = min(len(buffer), len(self._content))
        buffer[:size] = self._content[:size]
        self._content = self._content[size:]
        return size

    def _decompressed(self, block: bytes) -> bytes:
        self._frame = self._frame or self._decompressor.decompressobj()
        try:
            content: bytes = self._frame.decompress(block)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        self._unread = b""
        if self._frame.eof:
            self._unread, self._frame = self._frame.unused_data, None
        return content

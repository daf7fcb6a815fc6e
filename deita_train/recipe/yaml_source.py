"""Reading a recipe's YAML file into plain values, with the line of each.

YAML 1.2's core schema holds: ``2e-5`` is a number, ``no`` and ``2024-01-01`` are text, keys are text as written.
A recipe is read from top to bottom, so what would hide a value from that reading (aliases, tags, merge keys, repeated
keys, several documents) is refused.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from deita_train.errors import UserError
from deita_train.recipe.wording import describe, nearest

_MAX_DEPTH = 50
_MAX_NUMBER_CHARS = 60
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGERS = ((re.compile(r"[-+]?[0-9]+"), 10), (re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
_SURROGATE = re.compile("[\ud800-\udfff]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

KeyPath = tuple[str, ...]


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


def load_yaml(path: Path) -> tuple[dict[str, Any], Positions]:
    """Read the mapping in the YAML file ``path``.

    Returns:
        The mapping as dict, list, str, int, float, bool and None, with text keys; and the line of each entry.

    Raises:
        UserError: The file is missing or unreadable, is not UTF-8, holds a tab, is not YAML 1.2, is not one mapping, or
            uses an anchor, alias, merge key, tag, repeated key or a number that a float cannot hold.
    """
    text = _read_text(path)
    builder = _Builder(text, str(path), numbered=True)
    data = builder.document()
    if not isinstance(data, dict):
        found = "the file is empty" if data is None else describe(data)
        raise UserError(f"{path}:{builder.lines.get((), 1)}: {found}; a recipe is a mapping of sections")
    return data, Positions(builder.lines)


def parse_value(text: str, *, source: str) -> Any:
    """Parse ``text`` as one YAML value by the rules of :func:`load_yaml`; empty text is None.

    Raises:
        UserError: The text is not one such value. The message begins with ``source``.
    """
    return _Builder(text, source, numbered=False).document()


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
    """Say which file in the folder of ``path`` may have been meant."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"})
    near = nearest(path.name, names) or nearest(f"{path.name}.yaml", names)
    if near:
        return f" (did you mean {path.parent / near}?)"
    return f"; recipes in {path.parent}: {', '.join(names[:10])}" if names else f"; {path.parent} holds no .yaml file"


class _Builder:
    """Builds plain values from ruamel's parser events; every event carries its line."""

    def __init__(self, text: str, source: str, *, numbered: bool) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._source = source
        self._numbered = numbered
        self._events = self._parse(text)

    def document(self) -> Any:
        """Return the value of the only document; None for empty text."""
        next(self._events)  # the start of the stream
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            return None
        assert isinstance(start, DocumentStartEvent)
        if start.version is not None or start.tags:
            self._refuse(start, "a % directive stands above; a recipe is YAML 1.2 without directives: remove it")
        value = self._node(next(self._events), ())
        assert isinstance(next(self._events), DocumentEndEvent)
        after = next(self._events)
        if not isinstance(after, StreamEndEvent):
            self._refuse(after, "a second document starts here; a recipe is one document: remove the --- line")
        return value

    def _parse(self, text: str) -> Iterator[Event]:
        """Yield the parser's events, with its errors as UserError."""
        try:
            # Only the Python parser gives YAML 1.2 and line numbers; typ="safe" alone would choose the C one.
            yield from YAML(typ="safe", pure=True).parse(io.StringIO(text))
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            context = f" ({error.context}{self._begun(error)})" if error.context else ""
            problem = str(error.problem).replace(r"'\x00'", "the end")  # the scanner's own mark of the end
            raise UserError(f"{self._at(line)}: not YAML: {problem}{context}{_syntax_advice(error)}") from None
        except YAMLError as error:
            line = text.count("\n", 0, getattr(error, "position", 0)) + 1
            raise UserError(f"{self._at(line)}: not YAML: holds a character that YAML does not allow") from None
        except ValueError:
            # The scanner passes the digits of \U to chr() unchecked.
            raise UserError(f"{self._source}: not YAML: a \\U escape is beyond the last character of Unicode") from None

    def _begun(self, error: MarkedYAMLError) -> str:
        """Where the bracket or quotation mark stands that was not closed, when that is on another line."""
        begun, found = error.context_mark, error.problem_mark
        if not self._numbered or begun is None or found is None or begun.line == found.line:
            return ""
        return f" that begins on line {begun.line + 1}"

    def _at(self, line: int) -> str:
        return f"{self._source}:{line}" if self._numbered else self._source

    def _refuse(self, event: Event, problem: str) -> NoReturn:
        raise UserError(f"{self._at(event.start_mark.line + 1)}: {problem}")

    def _node(self, event: Event, path: KeyPath) -> Any:
        self._check(event)
        self.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, ScalarEvent):
            return event.value if event.style else self._plain(event)
        if len(path) >= _MAX_DEPTH:
            self._refuse(event, f"nested deeper than {_MAX_DEPTH} levels")
        return self._mapping(path) if isinstance(event, MappingStartEvent) else self._sequence(event, path)

    def _check(self, event: Any) -> None:
        """Refuse what depends on another place of the file or on a type named by a tag, and text that is no text."""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            sign = "alias *" if isinstance(event, AliasEvent) else "anchor &"
            self._refuse(event, f"{sign}{event.anchor}: a recipe is read top to bottom; write the value out")
        if isinstance(event, ScalarEvent) and _SURROGATE.search(event.value):
            self._refuse(event, "a \\u escape is half of a surrogate pair; write the character itself")
        if getattr(event, "ctag", None):
            self._refuse(event, f"tag {event.tag}: write the value without a tag; quotes make it text")

    def _sequence(self, start: Event, path: KeyPath) -> list[Any]:
        assert isinstance(start, SequenceStartEvent), start
        items: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, (*path, str(len(items)))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event)
            entry = (*path, key)
            if key in entries:
                first = f" (first on line {self.lines[entry]})" if self._numbered else ""
                self._refuse(event, f"{'.'.join(entry)}: the key is repeated{first}; keep one of the two")
            self.lines[entry] = event.start_mark.line + 1
            entries[key] = self._node(next(self._events), entry)
        return entries

    def _key(self, event: Event) -> str:
        self._check(event)
        if not isinstance(event, ScalarEvent):
            self._refuse(event, "a key is a list or a mapping; a key is text")
        if event.value == "<<" and not event.style:
            self._refuse(event, "merge key <<: a recipe is read top to bottom; write the keys out")
        return event.value

    def _plain(self, event: ScalarEvent) -> Any:
        """Return the value of an unquoted scalar by the core schema of YAML 1.2."""
        text = event.value
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INFINITE.fullmatch(text):
            return float(text.replace(".", "", 1))
        if not _FLOAT.fullmatch(text) and not any(pattern.fullmatch(text) for pattern, _ in _INTEGERS):
            return text
        number = _number(text) if len(text) <= _MAX_NUMBER_CHARS else math.inf
        if math.isinf(number):
            self._refuse(event, f"{text[:_MAX_NUMBER_CHARS]} is too large for a number; put it in quotes if it is text")
        return number


def _number(text: str) -> int | float:
    base = next((base for pattern, base in _INTEGERS if pattern.fullmatch(text)), None)
    return float(text) if base is None else int(text, base)


def _syntax_advice(error: MarkedYAMLError) -> str:
    """Return what usually mends the parser's complaint, or nothing."""
    problem = error.problem or ""
    if "mapping values are not allowed" in problem:
        return "; check the indentation, and put a value that holds ': ' in quotes"
    if re.match("expected ',' or '[]}]'", problem):
        return "; close the bracket, or put a value that holds a bracket or a comma in quotes"
    if "cannot start any token" in problem:
        return "; put a value that begins with this character in quotes"
    return ""

"""YAML text read into plain values with the line of each, and plain values written as YAML text.

Scalars follow the core schema of YAML 1.2: ``2e-5`` is a number, ``no`` and ``2024-01-01`` are text. Anchors, aliases
and merge keys are read. What would hide a value from its reader (tags, repeated keys, a second document) is refused.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

KeyPath = tuple[str, ...]

_UNTAGGED = Tag(suffix="untagged")
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
_MAX_NUMBER_CHARS = 60
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGERS = ((re.compile(r"[-+]?[0-9]+"), 10), (re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MERGE = "<<"
_SURROGATE = re.compile("[\ud800-\udfff]")
# What the parser complains of, and what helps.
_ADVICE = {
    "mapping values are not allowed": "check the indentation, and put a value that holds ': ' in quotes",
    r"expected ',' or '[]}]'": "close the bracket, or put a value that holds a bracket or a comma in quotes",
    "cannot start any token": "put a value that begins with this character in quotes",
}


_FORMS = {ScalarNode: "a single value", SequenceNode: "a list", MappingNode: "a mapping"}


class YamlProblem(Exception):
    """What is wrong with a YAML text; ``line`` is 1-based, None where the parser does not tell."""

    def __init__(self, line: int | None, problem: str) -> None:
        super().__init__(problem)
        self.line = line


class StatedProblem(YamlProblem):
    """What is wrong with a value that replaces one of the text; begins with its path."""


def read_yaml(text: str, stated: Mapping[KeyPath, str] | None = None) -> tuple[Any, dict[KeyPath, int]]:
    """Read the one value that a YAML text holds.

    Args:
        text: The YAML.
        stated: Values as YAML, by the path of an entry of the text, which they replace before aliases are followed.

    Returns:
        The value as dict with text keys, list, str, int, float, bool and None (also for empty text); and the 1-based
        line of the whole and of every key and list item, by its path from the top. What an alias or a merge key
        stands for has the lines on which it is written.

    Raises:
        YamlProblem: The text is not one YAML document, or holds what a recipe may not.
        StatedProblem: A stated value has no such entry, another form, or is not YAML.
    """
    root = _compose(text)
    for path, value in (stated or {}).items() if root else ():
        _restate(root, path, value)
    reader = _Reader()
    return (None if root is None else reader.value(root, ())), reader.lines


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return a mapping as YAML in block style that :func:`read_yaml` reads back, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(dict(data), text)
    return text.getvalue()


class _NoImplicitTags(VersionedResolver):
    """Gives every untagged node the same tag, so that any other one was written in the text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Tag:
        """Return the tag of untagged nodes."""
        return _UNTAGGED


def _compose(text: str) -> Node | None:
    """Parse the text into ruamel's nodes, which know their lines; None for empty text."""
    yaml = YAML(typ="safe", pure=True)  # the C parser is neither YAML 1.2 nor does it keep lines
    yaml.Resolver = _NoImplicitTags
    yaml.max_depth = _MAX_DEPTH
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # which is refused with both lines
            root = yaml.compose(StringIO(text))
    except MaxDepthExceededError as error:
        raise YamlProblem(_line_of(error), f"nested deeper than {_MAX_DEPTH} levels") from None
    except ComposerError as error:
        raise YamlProblem(_line_of(error), _composer_problem(error)) from None
    except MarkedYAMLError as error:
        raise YamlProblem(_line_of(error), f"not YAML: {_syntax_problem(error)}") from None
    except YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise YamlProblem(line, "not YAML: holds a character that YAML does not allow") from None
    except ValueError:
        # The scanner passes the digits of \U to chr() unchecked.
        raise YamlProblem(None, "not YAML: a \\U escape is beyond the last character of Unicode") from None
    if yaml.doc_infos[-1].doc_version or yaml.doc_infos[-1].tags:
        line = next(number for number, one in enumerate(text.split("\n"), 1) if one.startswith("%"))
        raise YamlProblem(line, "a % directive; a recipe is YAML 1.2 without directives: remove it")
    return root


def _line_of(error: MarkedYAMLError) -> int:
    return error.problem_mark.line + 1 if error.problem_mark else 1


def _composer_problem(error: ComposerError) -> str:
    """Say which of the composer's two problems it is: an alias without an anchor, or a second document."""
    alias = re.search("alias '(.*)'", str(error.problem))
    if alias:
        return f"alias *{alias[1]}: no anchor &{alias[1]} stands before it"
    return "a second document starts here; a recipe is one document: remove the --- line"


def _syntax_problem(error: MarkedYAMLError) -> str:
    """Return the parser's complaint, where an unclosed bracket or quote begins, and what usually fixes it."""
    problem = str(error.problem).replace(r"'\x00'", "the end")  # the scanner's own mark of the end
    begun = error.context_mark.line + 1 if error.context_mark else _line_of(error)
    begins = f" that begins on line {begun}" if begun != _line_of(error) else ""
    context = f" ({error.context}{begins})" if error.context else ""
    advice = next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, problem)), None)
    return f"{problem}{context}" + (f"; {advice}" if advice else "")


class _Reader:
    """Turns nodes into values, and notes the lines of what they hold.

    An alias is the node that its anchor is on, so that a node may be reached by several paths.
    """

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._anchors: dict[str, Node] = {}
        self._around: list[Node] = []
        self._num_values = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        """Return a node's value."""
        self._check(node)
        self.lines.setdefault(path, _line(node))
        if isinstance(node, ScalarNode):
            return node.value if node.style else _plain_scalar(node)
        with self._inside(node):
            if isinstance(node, SequenceNode):
                return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
            return {key: self._entry(*nodes, (*path, key)) for key, nodes in self._entries(node, path).items()}

    def _entry(self, key_node: Node, value_node: Node, path: KeyPath) -> Any:
        # An alias is a node before its key. What is in a list or a mapping has lines of its own.
        is_alias = value_node.start_mark.index < key_node.start_mark.index
        self.lines[path] = _line(value_node if is_alias and isinstance(value_node, ScalarNode) else key_node)
        return self.value(value_node, path)

    def _entries(self, node: Node, path: KeyPath) -> dict[str, tuple[Node, Node]]:
        """The entries of a mapping by key: those that it merges, and over them its own."""
        assert isinstance(node, MappingNode), node
        own: dict[str, tuple[Node, Node]] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in own:
                problem = f"the key is repeated (first on line {_line(own[key][0])}); keep one of the two"
                raise YamlProblem(_line(key_node), f"{'.'.join((*path, key))}: {problem}")
            own[key] = (key_node, value_node)
        if _MERGE not in own or _is_quoted(own[_MERGE][0]):
            return own
        _, merged = own.pop(_MERGE)
        return {**self._merged(merged, path), **own}

    def _merged(self, node: Node, path: KeyPath) -> dict[str, tuple[Node, Node]]:
        """What a merge key adds: a mapping's entries, or those of several, of which an earlier one comes first."""
        found: dict[str, tuple[Node, Node]] = {}
        for mapping in node.value if isinstance(node, SequenceNode) else [node]:
            self._check(mapping)
            if not isinstance(mapping, MappingNode):
                problem = "takes a mapping or a list of mappings, as *alias of one"
                raise YamlProblem(_line(mapping), f"{'.'.join((*path, _MERGE))}: {problem}")
            with self._inside(mapping):
                found = {**self._entries(mapping, path), **found}
        return found

    @contextmanager
    def _inside(self, node: Node) -> Iterator[None]:
        if any(node is other for other in self._around):
            raise YamlProblem(_line(node), f"anchor &{node.anchor}: its value holds an alias of itself")
        if len(self._around) == _MAX_DEPTH:
            raise YamlProblem(_line(node), f"nested deeper than {_MAX_DEPTH} levels")
        self._around.append(node)
        yield
        self._around.pop()

    def _key(self, node: Node) -> str:
        self._check(node)
        if not isinstance(node, ScalarNode):
            raise YamlProblem(_line(node), "a key is a list or a mapping; a key is text")
        if node.anchor:
            raise YamlProblem(_line(node), f"anchor &{node.anchor} is on a key; put it before a value")
        key: str = node.value
        return key

    def _check(self, node: Node) -> None:
        """Refuse explicit tags, text that is not Unicode, repeated anchors, and aliases without end."""
        if isinstance(node, ScalarNode) and _SURROGATE.search(node.value):
            raise YamlProblem(_line(node), "a \\u escape is half of a surrogate pair; write the character itself")
        if node.ctag is not _UNTAGGED:
            raise YamlProblem(_line(node), f"tag {node.tag}: write the value without a tag; quotes make it text")
        first = self._anchors.setdefault(node.anchor, node) if node.anchor else node
        if first is not node:
            problem = f"the anchor is repeated (first on line {_line(first)}); rename one of the two"
            raise YamlProblem(_line(node), f"&{node.anchor}: {problem}")
        self._num_values += 1
        if self._num_values > _MAX_VALUES:
            raise YamlProblem(_line(node), f"more than {_MAX_VALUES:,} values, with aliases written out")


def _is_quoted(node: Node) -> bool:
    return isinstance(node, ScalarNode) and bool(node.style)


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line


def _restate(root: Node | None, path: KeyPath, text: str) -> None:
    """Give the node at a path another value, for all its aliases.

    Raises:
        StatedProblem: There is no such entry, or its value has another form.
    """
    assert root is not None and path, path
    node, dotted = root, ".".join(path)
    for key in path:
        entries = node.value if isinstance(node, MappingNode) else []
        values = {name.value: value for name, value in entries if isinstance(name, ScalarNode)}
        if key not in values:
            raise StatedProblem(None, f"{dotted}: the recipe has {', '.join(values) or 'nothing'} there, and no {key}")
        node = values[key]
    try:
        new = _compose(text)
    except YamlProblem as problem:
        raise StatedProblem(None, f"{dotted}={text}: {problem}") from None
    if new is None or type(new) is not type(node):
        raise StatedProblem(None, f"{dotted}={text}: it is {_FORMS[type(node)]} in the recipe; state one")
    node.value = new.value
    if isinstance(node, ScalarNode) and isinstance(new, ScalarNode):
        node.style = new.style


def _plain_scalar(node: ScalarNode) -> Any:
    """Return the value of an unquoted scalar by the core schema."""
    text: str = node.value
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    base = next((base for pattern, base in _INTEGERS if pattern.fullmatch(text)), None)
    if base is None and not _FLOAT.fullmatch(text):
        return text
    number = math.inf
    if len(text) <= _MAX_NUMBER_CHARS:
        number = int(text, base) if base else float(text)
    if math.isinf(number):
        shown = text[:_MAX_NUMBER_CHARS]
        raise YamlProblem(
            node.start_mark.line + 1, f"{shown} is too large for a number; put it in quotes if it is text"
        )
    return number

"""YAML text read into plain values with the line of each, and plain values written as YAML text.

Scalars follow the core schema of YAML 1.2: ``2e-5`` is a number, ``no`` and ``2024-01-01`` are text. A recipe is read
top to bottom, so whatever would hide a value from its reader (aliases, merge keys, tags, repeated keys, a second
document) is refused.
"""

import math
import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

KeyPath = tuple[str, ...]

_UNTAGGED = Tag(suffix="untagged")
_MAX_DEPTH = 50
_MAX_NUMBER_CHARS = 60
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGERS = ((re.compile(r"[-+]?[0-9]+"), 10), (re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
# What the parser complains of, and what helps.
_ADVICE = {
    "mapping values are not allowed": "check the indentation, and put a value that holds ': ' in quotes",
    r"expected ',' or '[]}]'": "close the bracket, or put a value that holds a bracket or a comma in quotes",
    "cannot start any token": "put a value that begins with this character in quotes",
}


class YamlProblem(Exception):
    """What is wrong with a YAML text; ``line`` is 1-based, None where the parser does not tell."""

    def __init__(self, line: int | None, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def read_yaml(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read the one value that a YAML text holds.

    Returns:
        The value as dict with text keys, list, str, int, float, bool and None (also for empty text); and the 1-based
        line of the whole and of every key and list item, by its path from the top.

    Raises:
        YamlProblem: The text is not one YAML document, or holds what a recipe may not.
    """
    root = _compose(text)
    lines: dict[KeyPath, int] = {}
    return (None if root is None else _value(root, (), lines)), lines


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
        return f"alias *{alias[1]}: a recipe is read top to bottom; write the value out"
    return "a second document starts here; a recipe is one document: remove the --- line"


def _syntax_problem(error: MarkedYAMLError) -> str:
    """Return the parser's complaint, where an unclosed bracket or quote begins, and what usually fixes it."""
    problem = str(error.problem).replace(r"'\x00'", "the end")  # the scanner's own mark of the end
    begun = error.context_mark.line + 1 if error.context_mark else _line_of(error)
    begins = f" that begins on line {begun}" if begun != _line_of(error) else ""
    context = f" ({error.context}{begins})" if error.context else ""
    advice = next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, problem)), None)
    return f"{problem}{context}" + (f"; {advice}" if advice else "")


def _value(node: Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """Return a node's value, and note the lines of what it holds."""
    _check(node)
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, ScalarNode):
        return node.value if node.style else _plain_scalar(node)
    if isinstance(node, SequenceNode):
        return [_value(item, (*path, str(index)), lines) for index, item in enumerate(node.value)]
    assert isinstance(node, MappingNode), node
    return dict([_entry(key, value, path, lines) for key, value in node.value])


def _entry(key_node: Node, value_node: Node, path: KeyPath, lines: dict[KeyPath, int]) -> tuple[str, Any]:
    _check(key_node)
    line = key_node.start_mark.line + 1
    if not isinstance(key_node, ScalarNode):
        raise YamlProblem(line, "a key is a list or a mapping; a key is text")
    key: str = key_node.value
    if key == "<<" and not key_node.style:
        raise YamlProblem(line, "merge key <<: a recipe is read top to bottom; write the keys out")
    entry = (*path, key)
    if entry in lines:
        problem = f"the key is repeated (first on line {lines[entry]}); keep one of the two"
        raise YamlProblem(line, f"{'.'.join(entry)}: {problem}")
    lines[entry] = line
    return key, _value(value_node, entry, lines)


def _check(node: Node) -> None:
    """Refuse anchors, without which there are no aliases, explicit tags, and text that is not Unicode."""
    line = node.start_mark.line + 1
    if node.anchor:
        raise YamlProblem(line, f"anchor &{node.anchor}: a recipe is read top to bottom; write the value out")
    if isinstance(node, ScalarNode) and _SURROGATE.search(node.value):
        raise YamlProblem(line, "a \\u escape is half of a surrogate pair; write the character itself")
    if node.ctag is not _UNTAGGED:
        raise YamlProblem(line, f"tag {node.tag}: write the value without a tag; quotes make it text")


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

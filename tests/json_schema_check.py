"""JSON Schema as far as our schema uses it, because the library jsonschema is no dependency."""

import re


def fits(value, schema, root):
    """Whether a value is what a schema wants; a keyword that is not known here is an error."""
    return all(_CHECKS[word](value, wanted, schema, root) for word, wanted in schema.items() if word not in _REMARKS)


def at(pointer, root):
    """The schema that a reference such as `#/$defs/Sft` leads to."""
    for name in pointer.removeprefix("#/").split("/"):
        root = root[name]
    return root


_REMARKS = {"$schema", "$comment", "$defs", "title", "description", "default"}
_TYPES = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _same(value, other):
    return type(value) is type(other) and value == other


def _additional(value, wanted, schema, root):
    patterns = schema.get("patternProperties", {})
    others = [
        inner
        for name, inner in _entries(value)
        if name not in schema.get("properties", {}) and not any(re.search(pattern, name) for pattern in patterns)
    ]
    return not others if wanted is False else wanted is True or all(fits(inner, wanted, root) for inner in others)


def _entries(value):
    return value.items() if isinstance(value, dict) else ()


def _properties(value, wanted, schema, root):
    return all(fits(inner, wanted[name], root) for name, inner in _entries(value) if name in wanted)


def _pattern_properties(value, wanted, schema, root):
    return all(
        fits(inner, of_pattern, root)
        for pattern, of_pattern in wanted.items()
        for name, inner in _entries(value)
        if re.search(pattern, name)
    )


def _number(compare):
    return lambda value, wanted, *_: not _TYPES["number"](value) or compare(value, wanted)


def _length(kind, compare):
    return lambda value, wanted, *_: not isinstance(value, kind) or compare(len(value), wanted)


_CHECKS = {
    "type": lambda value, wanted, *_: _TYPES[wanted](value),
    "enum": lambda value, wanted, *_: any(_same(value, choice) for choice in wanted),
    "const": lambda value, wanted, *_: _same(value, wanted),
    "anyOf": lambda value, wanted, schema, root: any(fits(value, member, root) for member in wanted),
    "$ref": lambda value, wanted, schema, root: fits(value, at(wanted, root), root),
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": lambda value, wanted, schema, root: all(fits(name, wanted, root) for name, _ in _entries(value)),
    "required": lambda value, wanted, *_: not isinstance(value, dict) or set(wanted) <= set(value),
    "items": lambda value, wanted, schema, root: (
        not isinstance(value, list) or all(fits(item, wanted, root) for item in value)
    ),
    "pattern": lambda value, wanted, *_: not isinstance(value, str) or re.search(wanted, value) is not None,
    "minProperties": _length(dict, int.__ge__),
    "minItems": _length(list, int.__ge__),
    "maxItems": _length(list, int.__le__),
    "minimum": _number(lambda value, wanted: value >= wanted),
    "maximum": _number(lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _number(lambda value, wanted: value > wanted),
    "exclusiveMaximum": _number(lambda value, wanted: value < wanted),
}

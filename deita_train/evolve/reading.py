"""What a model's answer says: its words without thinking aloud, and the JSON in it. Never fails, whatever the text."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_OPENING = re.compile(r"[\[{]")
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>")


@dataclass(frozen=True)
class Unusable:
    """An answer that cannot be used.

    Attributes:
        reason: in one word, for counting.
        detail: what is wrong with it, for a person.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class JsonObject:
    """A JSON object with every pair it was written with: of a name that is there twice, Python keeps only the last."""

    pairs: tuple[tuple[str, Any], ...]


def without_thoughts(text: str) -> str:
    """The answer of a model that thinks aloud before it: what follows its thoughts; nothing if they do not end."""
    # Some templates put the opening mark into the prompt, so that the answer has only the closing one.
    said = _THOUGHT.sub("", text)
    ends = [mark.end() for mark in _END_OF_THOUGHT.finditer(said)]
    return said[max(ends, default=0) :].strip()


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, in their order, whatever stands around them; none within another."""
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: JsonObject(tuple(pairs)))
    place = 0
    while True:
        opening = _OPENING.search(text, place)
        if opening is None:
            return
        try:
            value, place = decoder.raw_decode(text, opening.start())
        except RecursionError:  # a thousand brackets within one another are no answer
            return
        except ValueError:  # also for a number of thousands of digits
            place = opening.end()
        else:
            yield value

"""Prompts of a task without the labels that all of them begin and end with, such as `Question:` and `Answer:`."""

from collections.abc import Sequence

# Of fewer different prompts, what they have in common may be their content.
_LEAST_PROMPTS = 11


def without_frame(prompts: Sequence[str]) -> list[str]:
    """The prompts without what all begin with, up to a colon, and without the lines with which all end."""
    texts = list(dict.fromkeys(filter(None, prompts)))
    if len(texts) < _LEAST_PROMPTS:
        return list(prompts)
    begin = _beginning(texts).rfind(":") + 1
    ending = _beginning([text[begin:][::-1] for text in texts])[::-1]
    line = ending.find("\n")
    length = 0 if line < 0 else len(ending) - line
    return [text[begin : len(text) - length] for text in prompts]


def _beginning(texts: Sequence[str]) -> str:
    """What all of the texts begin with: as much as the first and the last in alphabetical order have in common."""
    first, last = min(texts), max(texts)
    length = next((place for place, letter in enumerate(first) if not last.startswith(letter, place)), len(first))
    return first[:length]

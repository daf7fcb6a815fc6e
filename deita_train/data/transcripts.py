"""Conversations in one text, as in hh-rlhf: before each turn an empty line, then "Human:" or "Assistant:"."""

import re
from typing import Any

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_BEGINNING = re.compile(r"\s*Human:")
_OPEN_END = re.compile(r"\n\nAssistant:\s*\Z")


def is_transcript(value: Any) -> bool:
    """Whether a value is a text in which a human speaks first."""
    return isinstance(value, str) and _BEGINNING.match(value) is not None


def is_open_transcript(value: Any) -> bool:
    """Whether a value is a transcript that ends where the assistant is to answer."""
    return is_transcript(value) and _OPEN_END.search(value) is not None


def transcript_texts(transcript: str) -> list[tuple[str, str]]:
    """The speakers, as roles, and their texts, without the space behind a speaker's name."""
    _, *parts = _SPEAKER.split(transcript.lstrip())
    return [(_ROLES[name], text.removeprefix(" ")) for name, text in zip(parts[::2], parts[1::2], strict=True)]

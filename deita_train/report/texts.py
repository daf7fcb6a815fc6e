"""Texts of data as a page may show them: what cannot be seen made visible, long ones cut."""

from __future__ import annotations

import re

# Control characters but tab and newline, and characters that turn the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_PICTURES = 0x2400


def visible(text: str) -> str:
    """`text` with control characters as their pictures or codes: `\N{SYMBOL FOR ESCAPE}`, `<U+202E>`."""
    return _UNSEEN.sub(_seen, text.replace("\r\n", "\n"))


def shortened(text: str, max_chars: int) -> str:
    """`text` on one line, cut to `max_chars` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _seen(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return chr(_PICTURES + code) if code < 0x20 else f"<U+{code:04X}>"

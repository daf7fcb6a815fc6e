"""Texts as the words by which two of them are compared: without case, spaces, punctuation and ways of encoding."""

import re
import unicodedata
from functools import cache, lru_cache
from itertools import chain

# Scripts written without spaces between words: Thai, Lao, Myanmar, Khmer, Han, kana and their extensions.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x3029), (0x3038, 0x303C), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip
# Where Unicode has letters, numbers, marks and format characters; between and above lie private and empty planes.
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE1000))
# The marks of half-width kana, which Unicode counts as letters.
_KANA_MARKS = frozenset((0xFF9E, 0xFF9F))
_ASCII_WORDS = re.compile(r"[A-Za-z0-9]+")
# Letters, numbers and marks are kept of a word; format characters, such as soft hyphens, only hold it together.
_KEPT = ("L", "N", "M")


def normalised_words(text: str) -> list[str]:
    """The words of a text in order, in lower case and in one encoding; what is neither letter nor number divides them.

    In scripts without spaces between words each character, with its marks, is a word.
    """
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    return list(filter(None, map(_normalised, _pattern().findall(text))))


def word_places(text: str) -> list[tuple[int, int]]:
    """Where each of ``normalised_words`` begins and ends in the text."""
    if text.isascii():
        return [found.span() for found in _ASCII_WORDS.finditer(text)]
    return [found.span() for found in _pattern().finditer(text) if _normalised(found.group())]


@lru_cache(maxsize=1 << 16)
def is_unspaced(word: str) -> bool:
    """Whether a normalised word is a character of a script without spaces."""
    return not word.isascii() and _in_unspaced(ord(word[0]))


@lru_cache(maxsize=1 << 16)
def _normalised(word: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in _KEPT)


@cache
def _pattern() -> re.Pattern[str]:
    """A character of a script without spaces with its marks, or a run of other letters, numbers and marks."""
    spaced: list[int] = []
    unspaced: list[int] = []
    joined: list[int] = []
    for code in chain(*_ASSIGNED):
        category = unicodedata.category(chr(code))
        if category[0] == "M" or category == "Cf" or code in _KANA_MARKS:
            joined.append(code)
        elif category[0] in _KEPT:
            (unspaced if _in_unspaced(code) else spaced).append(code)
    base, alone, marks = map(_ranges, (spaced, unspaced, joined))
    return re.compile(f"[{alone}][{marks}]*|[{base}][{base}{marks}]*")


def _in_unspaced(code: int) -> bool:
    return any(first <= code <= last for first, last in _UNSPACED)


def _ranges(codes: list[int]) -> str:
    """Ascending code points as ranges of a character class."""
    parts, first = [], codes[0]
    for code, following in zip(codes, [*codes[1:], -1], strict=True):
        if following != code + 1:
            parts.append(f"\\U{first:08x}-\\U{code:08x}")
            first = following
    return "".join(parts)

"""A text as its words, so that texts can be compared whatever their punctuation, case and spacing."""

import unicodedata

# Letters of Chinese and Japanese, which do not put spaces between words: each counts as a word.
_UNSPACED = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class _Separators(dict[int, str]):
    """What `str.translate` puts in a character's place: punctuation, symbols, spaces and controls become a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] in "PSZC":
            new = " "
        elif any(first <= code <= last for first, last in _UNSPACED):
            new = f" {character} "
        else:
            new = character
        self[code] = new
        return new


_SEPARATORS = _Separators()


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation, in compatibility form (NFKC); a Chinese or Japanese character
    is one."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_SEPARATORS).split()


def word_runs(of: list[str], length: int) -> set[tuple[str, ...]]:
    """All runs of `length` words that follow one another."""
    return {tuple(of[start : start + length]) for start in range(len(of) - length + 1)}

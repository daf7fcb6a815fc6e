"""Scores in a model's answer: by the numbers of the listed texts, in whatever form; refused where that is in doubt.

A number that is guessed would become a label, so an answer is either read in full or not at all.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from typing import Any

from deita_train.evolve.reading import JsonObject, Unusable, json_values, without_thoughts

LOWEST, HIGHEST = 1, 6
# From so many texts on, one score for all is no ranking.
_TIES_MATTER_FROM = 3

_ITEM_NAMES = frozenset({"item", "index", "id", "number", "no", "nr", "instruction", "question", "answer", "response"})
_SCORE_NAMES = frozenset({"score", "rating", "value", "complexity", "quality"})
_SCORES_NAMES = frozenset(f"{name}s" for name in _SCORE_NAMES)
# Objects within objects; deeper ones hold no scores.
_DEEPEST = 4

_DASH = r"\-\u2013\u2014"
# With a decimal comma too, unless another entry begins behind it ("1:3,2:4").
_NUMBER = r"[+\-\u2212]?\d{1,6}(?!\d)(?:\.\d+|,\d+(?![\d\s]*[\"'\])]*\s*[:=]))?"
_OF_SIX = r"(?:\s*/\s*6(?!\d))?"
_WORD = r"[^\W\d]+"
_WORDS = rf"(?:{_WORD}\s+){{0,2}}{_WORD}"
# What may stand before the first entry of a line.
_BEFORE = r"[^\w\[({#\"'+\-\u2212]*"
_PAIR = rf"(?:{_WORD}\s*)?[\[(#\"']*(\d{{1,6}})[\])\"']*\s*(?:[:=]|->|=>)\s*[\"']?({_NUMBER}){_OF_SIX}[\"']?(?![\w./])"
_PAIRS = re.compile(_PAIR)
_APART = r"[^\w\[(#\"'+\-\u2212]*"
_ONLY_PAIRS = re.compile(rf"{_APART}(?:{_PAIR}{_APART}){{2,}}")
_LABEL = rf"(?:{_WORDS}\s*[:=]\s*|{_WORD}\s+(?:is\s+)?)"
_BETWEEN = r"(?:\s*(?:->|=>|[:=>\u2192\u2013\u2014])\s*|\s*[.,\-]?\s+)"
_LINE = re.compile(
    rf"{_BEFORE}(?:{_WORDS}\s*)?[\[({{#\"']*\s*(?P<item>\d{{1,6}})(?!\d)\s*[\])}}\"']*"
    rf"(?:{_BETWEEN}{_LABEL}?|{_LABEL})[\"'(]*(?P<score>{_NUMBER}){_OF_SIX}[\"')]*"
    # Behind a score: nothing, or words that are set apart from it. "3-4", "3 or 4", "3 steps" are no scores.
    rf"(?:\s*$|\s*[,;.](?!\s*\d).*|\s*[(\[].*|\s[{_DASH}]+\s+(?!\d).*)"
)
_CELL = re.compile(rf"[^\w+\-\u2212]*(?:{_WORDS}[^\w+\-\u2212]*)?({_NUMBER}){_OF_SIX}[^\w/]*")
_BULLET = re.compile(r"^(?:[-+>\u2022]+\s+|#{1,6}\s+)+")

Entry = tuple[int, Any]


def read_scores(text: str, count: int) -> list[int] | Unusable:
    """The score of each listed text, by its number.

    Read are, in this order of preference: JSON with the numbers as names or in fields, lines such as `1: 3`,
    `[1] score: 3/6` or `| 1 | 3 |`, and a bare list of `count` numbers in the listed order. Words, code fences and
    thoughts around them are passed over, and entries may come in any order.

    Args:
        text: of the model's answer.
        count: of the listed texts.

    Returns:
        `count` whole numbers from 1 to 6 in the listed order; or why there are none: "no_scores", "unknown_item",
        "doubled_item", "missing_item", "not_an_integer", "out_of_range", or "all_tied", the same score for three texts
        or more.
    """
    said = unicodedata.normalize("NFKC", without_thoughts(text))
    entries = _entries(said, count)
    scores = _by_item(entries, count) if entries else Unusable("no_scores", "it has no entries of a number and a score")
    if isinstance(scores, Unusable) or count < _TIES_MATTER_FROM or len(set(scores)) > 1:
        return scores
    return Unusable("all_tied", f"all {count} texts have the score {scores[0]}")


def read_score(text: str) -> int | Unusable:
    """The one score in a model's answer about one text.

    Read are JSON with a field such as `score`, or the only number of the answer, or that of its only line that has
    nothing else but a label; `/6` may follow it.

    Returns:
        A whole number from 1 to 6; or why there is none: "no_scores", "several_scores", "not_an_integer",
        "out_of_range".
    """
    said = unicodedata.normalize("NFKC", without_thoughts(text))
    values = list(json_values(said))
    found = [number for value in values for number in _score_fields(value)]
    if not found and values and all(_is_number_list(value) for value in values):
        found = [number for value in values for number in value]
    if not found:
        lines = [match[1] for line in said.splitlines() if (match := _CELL.fullmatch(_plain(line)))]
        found = lines or re.findall(rf"(?<![\w.])({_NUMBER})(?:\s*/\s*6\b)?", said)
    if not found:
        return Unusable("no_scores", "it has no number")
    if len(found) > 1:
        return Unusable("several_scores", f"it has {len(found)} numbers, and which is the score is not clear")
    return _whole_number(found[0], "the score")


def _entries(said: str, count: int) -> list[Entry]:
    values = list(json_values(said))
    entries = [entry for value in values for entry in _json_entries(value)]
    if entries:
        return entries
    entries = [entry for line in said.splitlines() for entry in _line_entries(_plain(line))]
    if entries:
        return entries
    lists = [value for value in values if _is_number_list(value) and len(value) == count]
    return list(enumerate(lists[0], start=1)) if len(lists) == 1 else []


def _json_entries(value: Any, depth: int = 0) -> Iterator[Entry]:
    """The entries of a JSON object, or of a list of such; nothing for a value that is about something else."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for inner in value:
            yield from _json_entries(inner, depth + 1) if isinstance(inner, JsonObject) else ()
    elif isinstance(value, JsonObject):
        item, scores = _item_field(value), _score_fields(value)
        if item is not None and scores:
            yield from ((item, score) for score in scores)
        else:
            for name, inner in value.pairs:
                yield from _named_entries(name, inner, depth, is_only_pair=len(value.pairs) == 1)


def _named_entries(name: str, inner: Any, depth: int, *, is_only_pair: bool) -> Iterator[Entry]:
    """The entries of one pair of a JSON object: `"1": 3`, `"item 1": {"score": 3}`, `"scores": [3, 4]`."""
    number = _number_of_name(name)
    if number is not None:
        yield from ((number, score) for score in _score_fields(inner) or [inner])
    elif _is_number_list(inner):
        # More or fewer than there are texts: each has its number, and what is missing or unknown is told.
        yield from enumerate(inner, start=1) if is_only_pair or _is_name(name, _SCORE_NAMES | _SCORES_NAMES) else ()
    else:
        yield from _json_entries(inner, depth + 1)


def _is_name(name: str, names: Set[str]) -> bool:
    return name.casefold().strip() in names


def _item_field(value: JsonObject) -> int | None:
    for name, inner in value.pairs:
        if _is_name(name, _ITEM_NAMES):
            number = inner if isinstance(inner, int) and not isinstance(inner, bool) else _number_of_name(str(inner))
            if number is not None:
                return number
    return None


def _score_fields(value: Any) -> list[Any]:
    if not isinstance(value, JsonObject):
        return []
    return [
        inner
        for name, inner in value.pairs
        if _is_name(name, _SCORE_NAMES) and not isinstance(inner, JsonObject | list)
    ]


def _is_number_list(value: Any) -> bool:
    if not isinstance(value, list) or len(value) == 0:
        return False
    return all(isinstance(inner, int | float) or (isinstance(inner, str) and _CELL.fullmatch(inner)) for inner in value)


def _number_of_name(name: str) -> int | None:
    """The number in a name such as `1`, `[1]`, `item 1` or `Item_1`."""
    found = re.fullmatch(r"[^\d]{0,24}?(\d{1,6})[^\w]*", name.strip())
    return int(found[1]) if found else None


def _plain(line: str) -> str:
    """A line without the marks of Markdown, its words one space apart."""
    return _BULLET.sub("", " ".join(re.sub(r"[*_`]+", "", line).split()))


def _line_entries(line: str) -> list[Entry]:
    cells = [found[1] for cell in line.split("|") if (found := _CELL.fullmatch(cell))] if "|" in line else []
    if len(cells) == 2 and cells[0].isdecimal():
        return [(int(cells[0]), cells[1])]
    if _ONLY_PAIRS.fullmatch(line):
        return [(int(item), score) for item, score in _PAIRS.findall(line)]
    found = _LINE.fullmatch(line)
    return [(int(found["item"]), found["score"])] if found else []


def _by_item(entries: Iterable[Entry], count: int) -> list[int] | Unusable:
    scores: dict[int, int] = {}
    for item, value in entries:
        if not 1 <= item <= count:
            return Unusable("unknown_item", f"it scores number {item}, and {count} are listed")
        if item in scores:
            return Unusable("doubled_item", f"it scores number {item} twice")
        score = _whole_number(value, f"the score of number {item}")
        if isinstance(score, Unusable):
            return score
        scores[item] = score
    missing = [str(item) for item in range(1, count + 1) if item not in scores]
    if missing:
        return Unusable("missing_item", f"it does not score number {', '.join(missing)} of {count}")
    return [scores[item] for item in range(1, count + 1)]


def _whole_number(value: Any, what: str) -> int | Unusable:
    number = _as_number(value)
    if number is None or number != number // 1:
        return Unusable("not_an_integer", f"{what} is not a whole number")
    if not LOWEST <= number <= HIGHEST:
        return Unusable("out_of_range", f"{what} is not from {LOWEST} to {HIGHEST}")
    return int(number)


def _as_number(value: Any) -> float | None:
    """A number, or text that says one; None for anything else, such as true, null and infinity."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = _CELL.fullmatch(value)
        if found is None:
            return None
        value = found[1].replace("\N{MINUS SIGN}", "-").replace(",", ".")
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None

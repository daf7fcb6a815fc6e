"""Open tags of an instruction as InsTag uses them (Lu et al. 2023): asked from a model, read, and made uniform."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from deita_train.evolve.elimination import reason_of_call
from deita_train.evolve.prompts import TAGS, Prompts
from deita_train.evolve.reading import JsonObject, Unusable, json_values, without_thoughts
from deita_train.evolve.tag_table import TagTable
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest

MAX_TOKENS = 1024
_TAG_NAMES = frozenset({"tag", "name", "label"})
_LIST_NAMES = frozenset({"tags", "labels"})
_BULLET = re.compile(r"\s*(?:[-*\u2022]|\d{1,3}[.)])\s+(.+)")
# A sentence is no tag.
LONGEST_TAG_CHARS = 80
_JOINERS = re.compile(r"[\s_\-\u2010-\u2015/,;]+")


@dataclass(frozen=True)
class TagNames:
    """What the tags of a pool became.

    Attributes:
        name_of: the name that each uniform tag has in the end; None for a rare one, dropped.
        rows_with: how many rows have each final name.
    """

    name_of: Mapping[str, str | None]
    rows_with: Mapping[str, int]


def tag_request(prompts: Prompts, instruction: str, *, attempt: int = 0, max_tokens: int = MAX_TOKENS) -> ChatRequest:
    """Ask a model for the tags of an instruction."""
    messages = ({"role": "user", "content": prompts.render(TAGS, instruction=instruction)},)
    return ChatRequest(messages, max_tokens=max_tokens, json_object=True, attempt=attempt)


def judge_tags(answer: Answer | Failure) -> list[str] | Unusable:
    """The tags in the answer to `tag_request`, or why there are none.

    A list that was cut off is unusable, since how many tags a row has is its complexity.
    """
    failed = reason_of_call(answer)
    if isinstance(answer, Failure):
        return Unusable(str(failed), answer.detail)
    return Unusable(failed, "it is not whole") if failed is not None else read_tags(answer.text)


def read_tags(text: str) -> list[str] | Unusable:
    """The tags in a model's answer, as written, without repetitions.

    Read are JSON lists of texts or of objects with a field `tag`, also within an object, and lists with a bullet or a
    number before each tag.

    Returns:
        The tags in their order; or why there are none: "no_tags".
    """
    said = without_thoughts(text)
    found = [tag for value in json_values(said) for tag in _tags_of(value)]
    if not found:
        found = [match[1].strip() for line in said.splitlines() if (match := _BULLET.fullmatch(line))]
    tags = list(dict.fromkeys(tag for tag in found if uniform_tag(tag) and len(tag) <= LONGEST_TAG_CHARS))
    return tags or Unusable("no_tags", "it has no list of tags")


def _tags_of(value: Any) -> list[str]:
    """The texts of a JSON list, of objects their field `tag`; nothing of a value that holds no list of tags."""
    if isinstance(value, JsonObject):
        listed = _first_field(value, _LIST_NAMES)
        return _tags_of(listed) if isinstance(listed, list) else []
    if not isinstance(value, list):
        return []
    tags = [_first_field(inner, _TAG_NAMES) if isinstance(inner, JsonObject) else inner for inner in value]
    return [tag for tag in tags if isinstance(tag, str)]


def _first_field(value: JsonObject, names: Set[str]) -> Any:
    return next((inner for name, inner in value.pairs if name.casefold().strip() in names), None)


def uniform_tag(tag: str) -> str:
    """A tag in lower case and compatibility form, its words one space apart, without quotes around it or a point at its
    end; hyphens, slashes and the like are spaces."""
    joined = _JOINERS.sub(" ", unicodedata.normalize("NFKC", tag).casefold())
    return joined.lstrip(" \"'`").rstrip(" \"'`.:;!?")


def uniform_tags(tags: Iterable[str]) -> list[str]:
    """The distinct tags of a row as `uniform_tag` writes them, without those of which nothing is left."""
    return list(dict.fromkeys(uniform for tag in tags if (uniform := uniform_tag(tag))))


def tag_names(table: TagTable, *, fewest_rows: int, similarity: float) -> TagNames:
    """Make the tags of a pool uniform: near ones become one, rare ones are dropped.

    1. Tags with the same words in another order are one, under the spelling of most rows; a row counts once for each.
    2. From the most frequent to the rarest, ties in alphabetical order, a tag joins the most similar of the names found
       before it, if it is near: as many words, each with the same first letter, the same digits, and a normalised edit
       distance d / length of the longer, words in alphabetical order, of at most 1 - `similarity`. Else it is a name of
       its own if at least `fewest_rows` rows have it, and dropped if not.

    The result does not depend on the order of the rows.

    Args:
        table: which rows have which tags, as `uniform_tags` writes them.
        fewest_rows: with a name; a tag of fewer rows, which is near no name, is dropped.
        similarity: from which two tags are near, above 0 and at most 1; 1 joins only the same words.
    """
    assert 0 < similarity <= 1, similarity
    spelling_of = _one_spelling(table.rows_with())
    joined = _joined(table.rows_with(spelling_of), fewest_rows, similarity)
    name_of = {tag: joined[spelling] for tag, spelling in spelling_of.items()}
    return TagNames(name_of, table.rows_with(name_of))


def _one_spelling(counts: Mapping[str, int]) -> dict[str, str]:
    """For each tag the spelling of most rows among those with the same words."""
    best: dict[str, str] = {}
    for tag in _by_frequency(counts):
        best.setdefault(_sorted_words(tag), tag)
    return {tag: best[_sorted_words(tag)] for tag in counts}


def _joined(counts: Mapping[str, int], fewest_rows: int, similarity: float) -> dict[str, str | None]:
    """For each tag the name that it joins or is; None for a rare one that is near no name."""
    names: dict[tuple[Any, ...], list[str]] = {}
    name_of_words: dict[str, str] = {}
    found: dict[str, str | None] = {}
    for tag in _by_frequency(counts):
        near = names.setdefault(_block(tag), [])
        # Tags with the same words are one by now, so the sorted words stand for the name.
        words = _sorted_words(tag)
        name = _nearest(words, near, similarity)
        if name is not None:
            found[tag] = name_of_words[name]
        elif counts[tag] >= fewest_rows:
            near.append(words)
            found[tag] = name_of_words[words] = tag
        else:
            found[tag] = None
    return found


def _by_frequency(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda tag: (-counts[tag], tag))


def _nearest(words: str, names: Sequence[str], similarity: float) -> str | None:
    """The name with the smallest distance, the first of several; None if none is near."""
    best, least = None, float("inf")
    for name in names:
        longer = max(len(words), len(name))
        # A whole number of edits; the small term keeps (1 - 0.9) * 10 from being less than 1.
        distance = edit_distance(words, name, int((1 - similarity) * longer + 1e-9))
        if distance is not None and distance / longer < least:
            best, least = name, distance / longer
    return best


def _block(tag: str) -> tuple[Any, ...]:
    """What near tags share: the first letter of each word, which tells parsing of bson from parsing of json, and the
    digits, which tell one version of a program from another."""
    letters = tuple(word[0] for word in sorted(tag.split()))
    return letters, tuple(re.findall(r"\d+", _sorted_words(tag)))


def _sorted_words(tag: str) -> str:
    return " ".join(sorted(tag.split()))


def edit_distance(first: str, second: str, most: int) -> int | None:
    """The number of characters to insert, delete or replace to make one text the other; None if more than `most`."""
    if abs(len(first) - len(second)) > most:
        return None
    before = list(range(len(second) + 1))
    for row, character in enumerate(first, start=1):
        after = [row]
        for column, other in enumerate(second, start=1):
            after.append(min(before[column] + 1, after[-1] + 1, before[column - 1] + (character != other)))
        if min(after) > most:
            return None
        before = after
    return before[-1] if before[-1] <= most else None

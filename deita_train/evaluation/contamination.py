"""Rows of data that repeat questions of benchmarks: the overlap of 13 successive words [arXiv 2005.14165, appendix C].

The rule, on words without case, spaces and punctuation (`normalised_words`):

- A question is found in a message that has 13 successive words of one of its texts.
- A text of 8 to 12 words is found where it stands whole, and a first turn of 4 to 7 words where it is all of a user's
  message. What is shorter is not looked for.
- In scripts without spaces each character counts as half a word, so that 13 words are 26 characters.
- Words that say nothing are not looked for: 13 of which less than a third are different words of two letters or more
  (numbers, single letters, repetitions), a shorter text without any, and what more than ten different texts of a
  benchmark share (its frame).

The index holds a hash of each sequence, with the text and the place that it is from; what the hashes find is compared
word by word.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deita_train.evaluation.normalised_words import normalised_words, word_places
from deita_train.evaluation.word_sequences import (
    GRAM,
    HALVES,
    UNKNOWN,
    Sequences,
    Vocabulary,
    grams,
    hashes_of,
    of_known_words,
)

SHORT_TEXT, WHOLE_MESSAGE = 8 * HALVES, 4 * HALVES
# More of the 13 words than this must be different words of two letters or more: 5 of 13.
_LEAST_TELLING = 0.33
# Texts of a benchmark that may share a sequence before it counts as the benchmark's frame.
MOST_TEXTS = 10
# Why a question is not looked for.
TOO_SHORT, TELLS_NOTHING, SHARED = "too_short", "tells_nothing", "shared_by_many"

_BATCH_WORDS = 1 << 18


class Question(NamedTuple):
    """A question of a benchmark, with the text of each turn."""

    id: str
    texts: tuple[str, ...]


class Passage(NamedTuple):
    """A text of a row: the number of its message, who says it, and what."""

    message: int
    role: str
    text: str


@dataclass(frozen=True)
class Hit:
    """The longest sequence of words that a row shares with a question.

    Attributes:
        benchmark: the benchmark's name.
        question: the question's id.
        turn: of the question, from 0.
        message: of the row, from 0.
        role: who says it in the row.
        start: where it begins in the message's text.
        end: where it ends there.
        span: the text between them.
        words: how many words it has.
        share: share of the question's words that the row repeats, in sequences that are long enough.
    """

    benchmark: str
    question: str
    turn: int
    message: int
    role: str
    start: int
    end: int
    span: str
    words: int
    share: float


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in an index: its questions' ids and weights, and how many are not looked for, by reason."""

    ids: Sequence[str]
    weights: Sequence[int]
    left_out: Mapping[str, int]


class _Text(NamedTuple):
    """An indexed text: the words by number and their weight, and which question and turn they are."""

    benchmark: str
    question: int
    turn: int
    words: np.ndarray
    weight: int


class _Match(NamedTuple):
    """Words `start` to `end` of a passage that are those of a text from `text_start` on."""

    start: int
    end: int
    text_start: int


class _Run(NamedTuple):
    """A match of a row: in which of its passages, and with which text."""

    passage: int
    text: int
    match: _Match


_Row = tuple[Sequence[Passage], list[np.ndarray]]


class Index:
    """The questions of benchmarks, to be found in rows."""

    def __init__(self, benchmarks: Mapping[str, Iterable[Question]]) -> None:
        """Index the questions of each benchmark, by its name."""
        self.benchmarks: dict[str, Benchmark] = {}
        self._vocabulary = Vocabulary()
        self._texts: list[_Text] = []
        self._whole: dict[bytes, list[int]] = defaultdict(list)
        parts: dict[int, list[Sequences]] = defaultdict(list)
        for name, questions in benchmarks.items():
            for length, sequences in self._add(name, list(questions)):
                parts[length].append(sequences)
        # By the number of words; 0 for those of 13, of which characters that count as half words make more.
        self._sequences = {length: Sequences.of(found) for length, found in sorted(parts.items())}

    def find(self, rows: Iterable[Sequence[Passage]]) -> Iterator[list[Hit]]:
        """For each row the questions that it repeats, the one with the longest common sequence first.

        Rows are read as they are needed, and no more of them are held than have some 260,000 words together.
        """
        batch: list[_Row] = []
        size = 0
        for passages in rows:
            words = [self._vocabulary.numbers(normalised_words(passage.text)) for passage in passages]
            batch.append((passages, words))
            size += sum(map(len, words)) + len(words)
            if size >= _BATCH_WORDS:
                yield from self._find_batch(batch)
                batch, size = [], 0
        yield from self._find_batch(batch)

    def _add(self, name: str, questions: Sequence[Question]) -> Iterator[tuple[int, Sequences]]:
        """Add a benchmark; gives the sequences of its texts, each text's with the key of its kind."""
        reasons: list[dict[int, str | None]] = [{} for _ in questions]
        wanted: list[tuple[int, np.ndarray, np.ndarray]] = []
        weights = [0] * len(questions)
        for number, question in enumerate(questions):
            for turn, words in enumerate(map(normalised_words, question.texts)):
                text = self._add_text(name, number, turn, words)
                weights[number] += text.weight
                place, of_question = len(self._texts) - 1, reasons[number]
                if text.weight >= SHORT_TEXT:
                    starts, ends = self._telling(text)
                    of_question[text.weight] = None if len(starts) else TELLS_NOTHING
                    wanted.append((place, starts, ends))
                elif text.weight >= WHOLE_MESSAGE and turn == 0:
                    of_question[text.weight] = None
                    self._whole[text.words.tobytes()].append(place)
                else:
                    of_question.setdefault(text.weight, TOO_SHORT)
        for place, starts, ends in self._without_frame(wanted):
            text = self._texts[place]
            if len(starts):
                numbers = np.full(len(starts), place)
                found = Sequences(hashes_of(text.words, starts, ends), numbers, starts, ends)
                yield 0 if text.weight >= GRAM else len(text.words), found
            elif reasons[text.question][text.weight] is None:
                reasons[text.question][text.weight] = SHARED
        self.benchmarks[name] = Benchmark([question.id for question in questions], weights, _left_out(reasons))

    def _add_text(self, benchmark: str, question: int, turn: int, words: Sequence[str]) -> _Text:
        numbers = self._vocabulary.add(words)
        text = _Text(benchmark, question, turn, numbers, self._vocabulary.weight(numbers.tolist()))
        self._texts.append(text)
        return text

    def _telling(self, text: _Text) -> tuple[np.ndarray, np.ndarray]:
        """Where a text's sequences begin and end that say something: of 13 words, or the whole of a shorter text."""
        if text.weight >= GRAM:
            starts, ends = grams(text.words, self._vocabulary.weights(text.words))
            least = _LEAST_TELLING
        else:
            starts, ends, least = np.array([0]), np.array([len(text.words)]), 0.0
        words, tells = text.words.tolist(), self._vocabulary.telling_share
        telling = [tells(words[start:end]) > least for start, end in zip(starts, ends, strict=True)]
        return starts[telling], ends[telling]

    def _without_frame(
        self, wanted: Sequence[tuple[int, np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The sequences of each text without those that too many different texts of the benchmark have."""
        if not wanted:
            return
        same: dict[bytes, int] = {}
        hashes, texts = [], []
        for place, starts, ends in wanted:
            words = self._texts[place].words
            hashes.append(hashes_of(words, starts, ends))
            texts.append(np.full(len(starts), same.setdefault(words.tobytes(), len(same)), dtype=np.uint64))
        pairs = np.unique(np.stack([np.concatenate(hashes), np.concatenate(texts)]), axis=1)
        values, counts = np.unique(pairs[0], return_counts=True)
        frame = values[counts > MOST_TEXTS]
        for (place, starts, ends), of_text in zip(wanted, hashes, strict=True):
            kept = ~np.isin(of_text, frame)
            yield place, starts[kept], ends[kept]

    def _find_batch(self, batch: Sequence[_Row]) -> Iterator[list[Hit]]:
        places = [(row, passage) for row, (_, words) in enumerate(batch) for passage in range(len(words))]
        runs: dict[int, list[_Run]] = defaultdict(list)
        for (number, text), matches in self._matches([batch[row][1][of] for row, of in places]).items():
            row, passage = places[number]
            runs[row] += [_Run(passage, text, match) for match in _joined(matches)]
        for row, (passages, _) in enumerate(batch):
            allowed = [run for run in runs.get(row, ()) if self._may_stand(run, passages[run.passage].role)]
            yield self._hits(passages, allowed)

    def _may_stand(self, run: _Run, role: str) -> bool:
        """Whether a text may stand there: a very short one only as what a user says."""
        return role == "user" or self._texts[run.text].weight >= SHORT_TEXT

    def _matches(self, passages: Sequence[np.ndarray]) -> dict[tuple[int, int], list[_Match]]:
        """The sequences that passages share with texts, by the numbers of both."""
        matches: dict[tuple[int, int], list[_Match]] = defaultdict(list)
        if not passages:
            return matches
        gap = np.array([UNKNOWN], dtype=np.int64)
        stream = np.concatenate([part for words in passages for part in (words, gap)])
        begins = np.cumsum([0, *(len(words) + 1 for words in passages)])
        for start, end, text, text_start in self._equal(stream):
            passage = int(np.searchsorted(begins, start, side="right")) - 1
            begin = int(begins[passage])
            matches[passage, text].append(_Match(start - begin, end - begin, text_start))
        for number, words in enumerate(passages):
            for text in self._whole.get(words.tobytes(), ()):
                matches[number, text].append(_Match(0, len(words), 0))
        return matches

    def _equal(self, stream: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """The windows of a stream of words that are indexed sequences: start, end, text, and place in the text."""
        for length, sequences in self._sequences.items():
            starts, ends = self._windows(stream, length)
            hashes = hashes_of(stream, starts, ends)
            for window, place in zip(*sequences.places(hashes), strict=True):
                start, end = int(starts[window]), int(ends[window])
                words = stream[start:end].tobytes()
                while place < len(sequences.hashes) and sequences.hashes[place] == hashes[window]:
                    text, text_start = int(sequences.texts[place]), int(sequences.starts[place])
                    if self._texts[text].words[text_start : sequences.ends[place]].tobytes() == words:
                        yield start, end, text, text_start
                    place += 1

    def _windows(self, stream: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        if length == 0:
            return grams(stream, self._vocabulary.weights(stream))
        starts = np.arange(max(0, len(stream) - length + 1))
        return of_known_words(stream, starts, starts + length)

    def _hits(self, passages: Sequence[Passage], runs: Sequence[_Run]) -> list[Hit]:
        """A hit for each question, the longest first; of equally long sequences, the first in the row."""
        by_question: dict[tuple[str, int], list[_Run]] = defaultdict(list)
        for run in runs:
            text = self._texts[run.text]
            by_question[text.benchmark, text.question].append(run)
        places = {passage: word_places(passages[passage].text) for passage in {run.passage for run in runs}}
        longest = {
            question: min(found, key=lambda run: (-self._weight(run), run.passage, run.match.start, run.text))
            for question, found in by_question.items()
        }
        order = sorted(longest, key=lambda question: (-self._weight(longest[question]), question))
        return [
            self._hit(passages, places[longest[of].passage], longest[of], self._covered(by_question[of]))
            for of in order
        ]

    def _hit(self, passages: Sequence[Passage], places: Sequence[tuple[int, int]], run: _Run, covered: int) -> Hit:
        text, said = self._texts[run.text], passages[run.passage]
        benchmark = self.benchmarks[text.benchmark]
        start, end = places[run.match.start][0], places[run.match.end - 1][1]
        return Hit(
            benchmark=text.benchmark,
            question=benchmark.ids[text.question],
            turn=text.turn,
            message=said.message,
            role=said.role,
            start=start,
            end=end,
            span=said.text[start:end],
            words=-(-self._weight(run) // HALVES),
            share=covered / benchmark.weights[text.question],
        )

    def _weight(self, run: _Run) -> int:
        return self._vocabulary.weight(self._words_of(run).tolist())

    def _words_of(self, run: _Run) -> np.ndarray:
        start, end, text_start = run.match
        return self._texts[run.text].words[text_start : text_start + end - start]

    def _covered(self, runs: Sequence[_Run]) -> int:
        """The weight of a question's words that lie in one of the runs or more."""
        places: dict[int, set[int]] = defaultdict(set)
        for run in runs:
            start, end, text_start = run.match
            places[run.text].update(range(text_start, text_start + end - start))
        return sum(
            self._vocabulary.weight(self._texts[text].words[sorted(found)].tolist()) for text, found in places.items()
        )


def _left_out(reasons: Sequence[Mapping[int, str | None]]) -> dict[str, int]:
    """How many questions have no text that is looked for, by the reason of their longest text."""
    lost = [str(of[max(of)]) if of else TOO_SHORT for of in reasons if None not in of.values()]
    return dict(sorted(Counter(lost).items()))


def _joined(matches: Sequence[_Match]) -> list[_Match]:
    """Matches that overlap or meet, in the passage and in the text alike, as one."""
    runs: list[_Match] = []
    for match in sorted(matches, key=lambda of: (of.start - of.text_start, of.start)):
        last = runs[-1] if runs else None
        is_same_line = last is not None and match.start - match.text_start == last.start - last.text_start
        if last is not None and is_same_line and match.start <= last.end:
            runs[-1] = last._replace(end=max(last.end, match.end))
        else:
            runs.append(match)
    return runs

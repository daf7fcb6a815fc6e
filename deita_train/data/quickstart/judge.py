"""The quickstart's judge: rules that read the package's own prompts and know the truth about the sample world.

It is no model and knows nothing else. It lets the quickstart rate answers, and label by evolution, without a network,
a price or a language model; its figures say how often generated tasks are solved, and nothing about a judge.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deita_train.data.quickstart.answers import ANSWERS, EVASIONS
from deita_train.data.quickstart.solver import Reading, solve
from deita_train.data.quickstart.tasks import Task

VERSION = 1
"""Raised when the rules answer otherwise, so that what was made with the old ones is made again."""
HARDEST = BEST = 6

# Quality by the answers' levels in this world: 1 evasive, 2 wrong, 3 partly worked and wrong, 4 right, 5 right with its
# steps, 6 the same with a check. Ratings go to 10 and tell wrong answers apart, because a miniature gives few others.
_EVASIVE, _WRONG, _PARTLY, _RIGHT, _WORKED, _CHECKED = range(1, 7)
# By which the worked manners of answering are known.
_WORKED_MANNERS = ("Step 1:", "Final answer:", "So it is", "This gives")
_FEWEST_WORDS, _DISTINCT_WORDS = 12, 0.15
_LONGEST_RUN = 12
_SHORTEST_FENCE = 12


@dataclass(frozen=True)
class _Text:
    """A text between fences, and the line before it."""

    label: str
    text: str


class UnknownPrompt(Exception):
    """A prompt that is not one of the package's own."""


def reply(messages: Sequence[Mapping[str, str]]) -> str:
    """What the judge answers.

    Raises:
        UnknownPrompt: the prompt is not one of those that it knows.
    """
    prompt = messages[-1]["content"]
    words, texts = _parts(prompt)
    for mark, answer in _PROMPTS:
        if mark in words:
            return answer(texts, random.Random(hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()))
    raise UnknownPrompt


def rating(task: Task, answer: str) -> int:
    """How good an answer is, from 1 to 10.

    1 if it says nothing (it is empty or evasive, or repeats itself without end), 2 if it is wrong, 3 if it is wrong and
    at least in the manner of a worked answer, 4 to 6 if it is wrong with some, half or all of its steps right, 7
    and more if it is right: 7 or 8 with less or more than half of its steps, 9 with all of them, 10 with a check too.
    """
    level, steps = quality(task, answer), _share_of_steps(task, answer)
    if level >= _RIGHT:
        return 10 if level == _CHECKED else 7 + int(2 * steps)
    if steps > 0:
        return 4 + int(2 * steps)
    if level == _EVASIVE or _breaks_down(answer):
        return 1
    return 3 if any(words in answer for words in _WORKED_MANNERS) else 2


def _breaks_down(answer: str) -> bool:
    """Whether an answer is one character or a few words over and over, as an untrained model's is."""
    words = answer.split()
    return bool(re.search(rf"(\w)\1{{{_LONGEST_RUN},}}", answer)) or (
        len(words) >= _FEWEST_WORDS and len(set(words)) < _DISTINCT_WORDS * len(words)
    )


def quality(task: Task, answer: str) -> int:
    """The level of an answer, from 1 to 6."""
    steps = _share_of_steps(task, answer)
    if _ends_with(answer, task.answer):
        if steps < 1:
            return _RIGHT
        return _CHECKED if "Final answer" in answer and "Check:" in answer else _WORKED
    if not answer.strip() or any(evasion in answer for evasion in EVASIONS):
        return _EVASIVE
    return _PARTLY if steps > 0 else _WRONG


def _share_of_steps(task: Task, answer: str) -> float:
    return sum(step in answer for step in task.steps) / len(task.steps)


def _ends_with(answer: str, right: str) -> bool:
    """Whether an answer ends in the right one, as every manner of answering does that knows it."""
    said = answer.strip().rstrip(".! ")
    before = said[: -len(right)][-2:]
    return said.endswith(right) and not (
        before[-1:].isalnum() or (before.endswith((",", ":", ", ")) and right[:1].isdigit())
    )


def _parts(prompt: str) -> tuple[str, list[_Text]]:
    """The words of a prompt around its fences, and the texts between them."""
    fences = re.findall(rf"^={{{_SHORTEST_FENCE},}}$", prompt, re.MULTILINE)
    if not fences:
        raise UnknownPrompt
    pieces = prompt.split(f"{max(fences, key=len)}")
    words, texts = pieces[0::2], pieces[1::2]
    labels = [(piece.strip().splitlines() or [""])[-1].strip() for piece in words]
    # The newlines belong to the fences; everything between them is the text.
    return "\n".join(words), [_Text(label, text[1:-1]) for label, text in zip(labels, texts, strict=False)]


def _last(texts: Sequence[_Text], *beginnings: str) -> str | None:
    """The last text whose label begins so."""
    found = [one.text for one in texts if one.label.startswith(beginnings)]
    return found[-1] if found else None


def _required(texts: Sequence[_Text], *beginnings: str) -> str:
    found = _last(texts, *beginnings)
    if found is None:
        raise UnknownPrompt
    return found


def _grade(question: str, reference: str | None, answer: str) -> int | None:
    """The rating of an answer; None if neither the task nor a reference is known."""
    reading = solve(question)
    if reading is not None:
        return rating(reading.task, answer)
    if reference is None:
        return None
    return 7 if _ends_with(answer, reference.strip().rstrip(".")) else 2


def _rate(texts: Sequence[_Text], drawn: random.Random) -> str:
    # Of a conversation, the references of earlier turns say nothing of the last one.
    last_turn = texts[max(place for place, one in enumerate(texts) if one.label.startswith("Question")) :]
    grade = _grade(last_turn[0].text, _last(last_turn, "Reference"), _required(last_turn, "Answer"))
    if grade is None:
        return "This is no task of the quickstart, and nothing says what is right. There is no rating."
    return f"Judged by rules that know the right answer.\nRating: [[{grade}]]"


def _pair(texts: Sequence[_Text], drawn: random.Random) -> str:
    last_turn = texts[max(place for place, one in enumerate(texts) if one.label.startswith("Question")) :]
    answers = [one.text for one in last_turn if one.label.startswith("Answer")]
    grades = [_grade(last_turn[0].text, _last(last_turn, "Reference"), answer) for answer in answers]
    if len(grades) != 2:
        raise UnknownPrompt
    first, second = grades
    if first is None or second is None:
        return "This is no task of the quickstart, and nothing says what is right. There is no verdict."
    return "[[C]]" if first == second else "[[A]]" if first > second else "[[B]]"


def _compare(texts: Sequence[_Text], drawn: random.Random) -> str:
    instruction = _required(texts, "Instruction:")
    first, second = (_grade(instruction, None, _required(texts, f"Answer {letter}:")) for letter in "AB")
    if first is None or second is None or first == second:
        # One letter has to be said; which, is drawn by the prompt.
        return drawn.choice("AB")
    return "A" if first > second else "B"


def _rank_instructions(texts: Sequence[_Text], drawn: random.Random) -> str:
    return _scores([_complexity(one.text) for one in texts])


def _rank_answers(texts: Sequence[_Text], drawn: random.Random) -> str:
    question, *answers = texts
    reading = solve(question.text)
    return _scores([None if reading is None else quality(reading.task, one.text) for one in answers])


def _score_instruction(texts: Sequence[_Text], drawn: random.Random) -> str:
    return json.dumps({"score": _complexity(texts[0].text)})


def _score_answer(texts: Sequence[_Text], drawn: random.Random) -> str:
    reading = solve(_required(texts, "Question"))
    return json.dumps({"score": None if reading is None else quality(reading.task, _required(texts, "Answer"))})


def _complexity(text: str) -> int | None:
    reading = solve(text)
    return None if reading is None else min(reading.task.complexity, HARDEST)


def _scores(scores: Sequence[int | None]) -> str:
    """The scores by the numbers of the texts; without those that are not known."""
    return json.dumps({str(number): score for number, score in enumerate(scores, start=1) if score is not None})


def _evolve_instruction(texts: Sequence[_Text], drawn: random.Random) -> str:
    """A task with one more operation; the same text, which is then dropped, where there is none."""
    (given,) = texts
    reading = solve(given.text)
    return _evolved(given.text if reading is None else _harder(reading, drawn))


def _harder(reading: Reading, drawn: random.Random) -> str:
    text = reading.task.instruction
    if reading.task.complexity >= HARDEST or not reading.further:
        return text
    harder = reading.with_one_more(drawn.choice(reading.further))
    return harder if _complexity(harder) == reading.task.complexity + 1 else text


def _evolve_answer(texts: Sequence[_Text], drawn: random.Random) -> str:
    """An answer of the next level; the same text, which is then dropped, of the best one."""
    answer, reading = _required(texts, "Answer"), solve(_required(texts, "Question"))
    if reading is None:
        return _evolved(answer)
    level = quality(reading.task, answer)
    return _evolved(answer if level == BEST else ANSWERS[level + 1](drawn, reading.task))


def _evolved(text: str) -> str:
    return f"<evolved>{text}</evolved>"


# By words that one prompt of the package has and no other.
_PROMPTS = (
    ("Rating: [[5]]", _rate),
    ("[[A]] if A is better", _pair),
    ("Answer with one letter, A or B", _compare),
    ("judge how complex they are", _rank_instructions),
    ("Judge how good the answers are", _rank_answers),
    ("judge how complex it is", _score_instruction),
    ("Judge how good the answer is", _score_answer),
    ("write a harder version of it", _evolve_instruction),
    ("Write a better version of the answer", _evolve_answer),
)

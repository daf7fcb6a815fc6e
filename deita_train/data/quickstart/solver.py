"""The truth about a text of the sample world, found again from the text alone: its task, and how it could be harder."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from deita_train.data.quickstart import vocabulary as v
from deita_train.data.quickstart.tasks import CONVERSIONS, COUNTS, LIST_OPERATIONS, Task, write_time

_OPERANDS = range(2, 61)
_DAY = 24 * 60


@dataclass(frozen=True)
class Reading:
    """A task as it was found in a text.

    Attributes:
        family: of the task.
        task: its steps and its answer; its instruction is the whole text.
        end: where its last operation ends in the text.
        further: operations or questions that it does not have yet.
        joint: what joins a further one to those before.
    """

    family: str
    task: Task
    end: int
    further: tuple[str, ...]
    joint: str = ", then "

    def with_one_more(self, operation: str) -> str:
        """The text with another operation behind the last one."""
        text = self.task.instruction
        return f"{text[: self.end]}{self.joint}{operation}{text[self.end :]}"


def solve(text: str) -> Reading | None:
    """The task in a text, whatever polite words are around it; None if it is not one of this world."""
    for read in _FAMILIES.values():
        reading = read(text)
        if reading is not None:
            return reading
    return None


def _operations(text: str, start: int, patterns: Iterable[str]) -> list[tuple[int, re.Match[str]]]:
    """What of these patterns stands behind a place, in the order of the text: number of the pattern, and match."""
    found = [(n, match) for n, pattern in enumerate(patterns) for match in re.finditer(pattern, text[start:])]
    return sorted(found, key=lambda one: one[1].start())


def _opening(text: str, *patterns: str) -> re.Match[str] | None:
    """Where a task begins, by the first pattern that is there."""
    return next((found for pattern in patterns if (found := re.search(pattern, text))), None)


def _arithmetic(text: str) -> Reading | None:
    opening = _opening(text, r"Start with (\d+), ", r"Take the number (\d+) and ", r"From (\d+): ")
    if opening is None:
        return None
    patterns = (r"double it|multiply it by 2", r"(?:subtract|take away) (\d+)", r"(?:add|increase it by) (\d+)")
    found = _operations(text, opening.end(), patterns)
    value, steps = int(opening[1]), []
    for number, match in found:
        operand = 2 if number == 0 else int(match[1])
        result = (value * operand, value - operand, value + operand)[number]
        steps.append(f"{value} {'*-+'[number]} {operand} = {result}")
        value = result
    further = (f"{words} {operand}" for operand in _OPERANDS for words in ("add", "increase it by"))
    return _found("arithmetic", text, opening.end(), found, steps, str(value), further)


def _clock(text: str) -> Reading | None:
    opening = _opening(text, r"(?:The clock shows|At|From) (\d\d):(\d\d)")
    if opening is None:
        return None
    found = _operations(text, opening.end(), (r"go (\d+) minutes forward", r"turn it back (\d+) minutes"))
    minute, steps = int(opening[1]) * 60 + int(opening[2]), []
    for number, match in found:
        move = int(match[1])
        target = (minute + (-move if number else move)) % _DAY
        steps.append(f"{write_time(minute)} {'-' if number else '+'} {move} minutes = {write_time(target)}")
        minute = target
    further = (
        words.format(move) for move in _OPERANDS for words in ("go {0} minutes forward", "turn it back {0} minutes")
    )
    return _found("clock", text, opening.end(), found, steps, write_time(minute), further)


def _word_list(text: str) -> Reading | None:
    opening = _opening(
        text,
        r"Take these words: ([^.:]*)\. Please ",
        r"Here is a list: ([^.:]*)\. First ",
        r"With (\w+(?:, \w+)+): ",
    )
    if opening is None:
        return None
    phrases = [phrase for phrase, _, _ in LIST_OPERATIONS]
    found = _operations(text, opening.end(), map(re.escape, phrases))
    words, steps = opening[1].split(", "), []
    for number, _ in found:
        _, title, apply = LIST_OPERATIONS[number]
        words = apply(words)
        steps.append(f"{title}: {', '.join(words)}")
    return _found("word_list", text, opening.end(), found, steps, ", ".join(words), _unused(phrases, found))


def _counting(text: str) -> Reading | None:
    opening = _opening(
        text, r"Look at: ([^.]*)\. ", r"The words are ([^.]*)\. ", r"Read this list: ([^.]*)\. Then answer\. "
    )
    if opening is None:
        return None
    questions = [question for question, _, _ in COUNTS]
    found = _operations(text, opening.end(), map(re.escape, questions))
    words = opening[1].split(", ")
    results = [(COUNTS[number][1], COUNTS[number][2](words)) for number, _ in found]
    steps = [f"In {words[0]} to {words[-1]}, {title}: {result}" for title, result in results]
    answer = ", ".join(str(result) for _, result in results)
    return _found("counting", text, opening.end(), found, steps, answer, _unused(questions, found), " ")


def _conversion(text: str) -> Reading | None:
    opening = _opening(text, r"(?:Convert|Please change|What is) (?=\d)")
    if opening is None:
        return None
    patterns = [rf"(\d+) {unit} (?:to|into|in) {target}" for unit, target, _ in CONVERSIONS]
    found = _operations(text, opening.end(), patterns)
    amounts = [(int(match[1]), *CONVERSIONS[number]) for number, match in found]
    results = [f"{amount * factor} {target}" for amount, _, target, factor in amounts]
    steps = [
        f"{amount} {unit} * {factor} = {result}"
        for (amount, unit, _, factor), result in zip(amounts, results, strict=True)
    ]
    used = {number for number, _ in found}
    further = [
        f"{amount} {unit} to {target}"
        for number, (unit, target, _) in enumerate(CONVERSIONS)
        if number not in used
        for amount in _OPERANDS
    ]
    return _found("conversion", text, opening.end(), found, steps, ", ".join(results), further)


def _fact_table(text: str) -> Reading | None:
    opening = _opening(text, r"(?:Table of name, age, city, job|We know|People): ((?:\w+, \d+, \w+, \w+(?:; )?)+)\. ")
    if opening is None:
        return None
    people = [person.split(", ") for person in opening[1].split("; ")]
    lookups = {
        question: (step, answer)
        for name, age, city, job in people
        for question, step, answer in (
            (f"Where does {name} live?", f"{name} lives in {city}", city),
            (f"What is the job of {name}?", f"{name} is a {job}", job),
            (f"How old is {name}?", f"{name} is {age} years old", age),
            (f"Who is from {city}?", f"The one from {city} is {name}", name),
        )
    }
    questions = list(lookups)
    found = _operations(text, opening.end(), map(re.escape, questions))
    facts = [lookups[questions[number]] for number, _ in found]
    steps, answer = [step for step, _ in facts], ", ".join(answer for _, answer in facts)
    return _found("fact_table", text, opening.end(), found, steps, answer, _unused(questions, found), " ")


def _rewriting(text: str) -> Reading | None:
    opening = _opening(text, r"The (\w+) (\w+) (\w+) the (\w+) near (the \w+)\.")
    if opening is None:
        return None
    adjective, job, verb, noun, place = opening.groups()
    patterns = (
        rf"name the {job} (\w+)", rf"say (\w+) and not {verb}", rf"change {noun} to (\w+)", r"call the thing (\w+)",
        "end with yesterday", f"leave out {adjective}", "begin with Then",
    )  # fmt: skip
    found = _operations(text, opening.end(), patterns)
    sentence, steps, said = opening[0], [], verb
    for number, match in found:
        new = match[1] if match.re.groups else ""
        changes = (
            (f"{job} ", f"{job} {new} "), (f" {verb} ", f" {new} "), (f" {noun} near", f" {new} near"),
            (f" {said} the ", f" {said} the {new} "), (f" near {place}", f" near {place} yesterday"),
            (f"{adjective} ", ""),
        )  # fmt: skip
        sentence = sentence.replace(*changes[number]) if number < len(changes) else f"Then t{sentence[1:]}"
        said = new if number == 1 else said
        steps.append(f"To {match[0]}: {sentence.rstrip('.')}")
    new_words = {
        0: [f"name the {job} {name}" for name in v.NAMES],
        1: [f"say {other} and not {verb}" for other in v.VERBS if other != verb],
        2: [f"change {noun} to {other}" for other in v.WORDS if other != noun],
        3: [f"call the thing {size}" for size in v.SIZES],
        4: ["end with yesterday"],
        5: [f"leave out {adjective}"],
        6: ["begin with Then"],
    }
    used = {number for number, _ in found}
    further = [phrase for number, phrases in new_words.items() if number not in used for phrase in phrases]
    return _found("rewriting", text, opening.end(), found, steps, sentence.rstrip("."), further)


def _planning(text: str) -> Reading | None:
    opening = _opening(
        text,
        r"Plan a ([\w ]+?) at (the \w+) for (\d+) people: ",
        r"We want a ([\w ]+?) near (the \w+), (\d+) guests\. ",
    )
    if opening is None:
        return None
    event, place, guests = opening.groups()
    forms = (
        (r"start at (\d+)", f"Ask all {guests} guests to come at {{0}}", "at {0}", map(str, range(7, 21))),
        (r"spend under (\d+) euros", "Write down each cost up to {0} euros", "{0} euros", map(str, range(20, 301, 5))),
        (r"serve no (\w+)", f"Choose meals without {{0}} for {guests} guests", "no {0}", v.FOODS),
        (r"let (\w+) lead", f"Give {{0}} the plan of the {event}", "led by {0}", v.NAMES),
        (r"bring one (\w+)", f"Put one {{0}} in the bag for {place}", "one {0}", v.WORDS),
        (r"do it on a (\w+)", f"Book {place} for {{0}}", "on {0}", v.WEEKDAYS),
        ("have a plan for rain", f"Look for a roof near {place}", "a roof", ("",)),
    )
    found = _operations(text, opening.end(), [form[0] for form in forms])
    given = [(forms[number], match[1] if match.re.groups else "") for number, match in found]
    steps = [form[1].format(word) for form, word in given]
    answer = f"{event} for {guests}, {', '.join(form[2].format(word) for form, word in given)}"
    used = {number for number, _ in found}
    further = [
        re.sub(r"\(.*\)", word, pattern)
        for number, (pattern, _, _, words) in enumerate(forms)
        if number not in used
        for word in words
    ]
    return _found("planning", text, opening.end(), found, steps, answer, further)


def _unused(phrases: list[str], found: list[tuple[int, re.Match[str]]]) -> list[str]:
    used = {number for number, _ in found}
    return [phrase for number, phrase in enumerate(phrases) if number not in used]


def _found(
    family: str,
    text: str,
    start: int,
    found: list[tuple[int, re.Match[str]]],
    steps: list[str],
    answer: str,
    further: Iterable[str],
    joint: str = ", then ",
) -> Reading | None:
    """The reading of a text that has one operation at least."""
    if not found:
        return None
    return Reading(family, Task(text, tuple(steps), answer), start + found[-1][1].end(), tuple(further), joint)


_FAMILIES: Mapping[str, Callable[[str], Reading | None]] = {
    "arithmetic": _arithmetic,
    "clock": _clock,
    "word_list": _word_list,
    "counting": _counting,
    "conversion": _conversion,
    "fact_table": _fact_table,
    "rewriting": _rewriting,
    "planning": _planning,
}

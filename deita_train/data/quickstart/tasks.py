"""Task families: an instruction of known complexity, with its worked steps and its answer.

The complexity of a task is the number of operations, questions or constraints in its instruction, 1 to 6.
How many words those take differs between and within the families, so length alone does not give it away.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deita_train.data.quickstart import vocabulary as v


@dataclass(frozen=True)
class Task:
    """One instruction and what a perfect answer to it holds.

    `steps` has one worked sentence per operation, so its length is the complexity.
    """

    instruction: str
    steps: tuple[str, ...]
    answer: str

    @property
    def complexity(self) -> int:
        """The number of operations in the instruction."""
        return len(self.steps)


def join_operations(rng: random.Random, phrases: Sequence[str]) -> str:
    """Join the phrases in one of three manners of speech, in order."""
    manner = rng.randrange(3)
    if manner == 0:
        return ", then ".join(phrases)
    if manner == 1:
        return ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
    return "; after that ".join(phrases)


def join_questions(rng: random.Random, questions: Sequence[str]) -> str:
    """Write the questions one after another, or as a lettered list."""
    if rng.random() < 0.5:
        return " ".join(questions)
    return " ".join(f"({letter}) {question}" for letter, question in zip("abcdef", questions, strict=False))


def make_arithmetic(rng: random.Random, complexity: int) -> Task:
    """A running calculation with `complexity` operations, all values from 0 to 999."""
    start = value = rng.randint(2, 99)
    phrases, steps = [], []
    for _ in range(complexity):
        operand = rng.randint(2, 60)
        choice = rng.random()
        if choice < 0.2 and value < 300:
            phrase, sign, operand, result = rng.choice(("double it", "multiply it by 2")), "*", 2, value * 2
        elif choice < 0.6 and operand <= value:
            phrase, sign, result = rng.choice((f"subtract {operand}", f"take away {operand}")), "-", value - operand
        else:
            phrase, sign, result = rng.choice((f"add {operand}", f"increase it by {operand}")), "+", value + operand
        phrases.append(phrase)
        steps.append(f"{value} {sign} {operand} = {result}")
        value = result
    template = rng.choice(("Start with {0}, {1}. What do you get?", "Take the number {0} and {1}.", "From {0}: {1}."))
    return Task(template.format(start, join_operations(rng, phrases)), tuple(steps), str(value))


def make_clock(rng: random.Random, complexity: int) -> Task:
    """A walk around the clock in `complexity` moves of 2 to 59 minutes."""
    start = minute = rng.randrange(24 * 60)
    phrases, steps = [], []
    for _ in range(complexity):
        move = rng.randint(2, 59)
        forward = rng.random() < 0.5
        target = (minute + (move if forward else -move)) % (24 * 60)
        phrases.append(f"go {move} minutes forward" if forward else f"turn it back {move} minutes")
        steps.append(f"{write_time(minute)} {'+' if forward else '-'} {move} minutes = {write_time(target)}")
        minute = target
    template = rng.choice(("The clock shows {0}. Please {1}.", "At {0} you {1}. What time is it?", "From {0}: {1}."))
    return Task(template.format(write_time(start), join_operations(rng, phrases)), tuple(steps), write_time(minute))


def write_time(minute: int) -> str:
    """A minute of the day, 0 to 1439, as hours and minutes."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


LIST_OPERATIONS: tuple[tuple[str, str, Callable[[list[str]], list[str]]], ...] = (
    ("sort them by the alphabet", "Sorted", sorted),
    ("reverse the order", "Reversed", lambda words: words[::-1]),
    ("drop the first word", "First dropped", lambda words: words[1:]),
    ("remove the last word", "Last removed", lambda words: words[:-1]),
    ("swap the first and the last", "Swapped", lambda words: [words[-1], *words[1:-1], words[0]]),
    ("move the first word to the end", "Moved", lambda words: [*words[1:], words[0]]),
    ("write them in capitals", "In capitals", lambda words: [word.upper() for word in words]),
    ("put the shortest words first", "By length", lambda words: sorted(words, key=len)),
)


def make_word_list(rng: random.Random, complexity: int) -> Task:
    """`complexity` different operations on a list of four to six words; the list never gets shorter than two."""
    words = rng.sample(v.WORDS, rng.randint(4, 6))
    operations = rng.sample(LIST_OPERATIONS, complexity)
    steps, current = [], words
    for _, title, apply in operations:
        current = apply(current)
        steps.append(f"{title}: {', '.join(current)}")
    template = rng.choice(("Take these words: {0}. Please {1}.", "Here is a list: {0}. First {1}.", "With {0}: {1}."))
    instruction = template.format(", ".join(words), join_operations(rng, [phrase for phrase, _, _ in operations]))
    return Task(instruction, tuple(steps), ", ".join(current))


COUNTS: tuple[tuple[str, str, Callable[[list[str]], int]], ...] = (
    ("How many words are there?", "words", len),
    ("How long is the first word?", "letters in the first", lambda words: len(words[0])),
    ("How many letters has the last word?", "letters in the last", lambda words: len(words[-1])),
    ("How many words have more than four letters?", "long words", lambda words: sum(len(w) > 4 for w in words)),
    ("How many words contain an e?", "words with e", lambda words: sum("e" in word for word in words)),
    ("How many contain an a?", "words with a", lambda words: sum("a" in word for word in words)),
    ("Count the letters of all words.", "letters in all", lambda words: sum(map(len, words))),
)


def make_counting(rng: random.Random, complexity: int) -> Task:
    """`complexity` counting questions about a list of three to six words."""
    words = rng.sample(v.WORDS, rng.randint(3, 6))
    counts = rng.sample(COUNTS, complexity)
    results = [count(words) for _, _, count in counts]
    steps = tuple(
        f"In {words[0]} to {words[-1]}, {title}: {n}" for (_, title, _), n in zip(counts, results, strict=True)
    )
    template = rng.choice(("Look at: {0}. {1}", "The words are {0}. {1}", "Read this list: {0}. Then answer. {1}"))
    questions = join_questions(rng, [question for question, _, _ in counts])
    return Task(template.format(", ".join(words), questions), steps, ", ".join(map(str, results)))


CONVERSIONS = (
    ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7),
    ("years", "months", 12), ("metres", "centimetres", 100), ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000), ("euros", "cents", 100), ("dozen", "pieces", 12),
)  # fmt: skip


def make_conversion(rng: random.Random, complexity: int) -> Task:
    """`complexity` quantities, each to be stated in a smaller unit."""
    chosen = [(*conversion, rng.randint(2, 500)) for conversion in rng.sample(CONVERSIONS, complexity)]
    phrase = rng.choice(("{0} {1} to {2}", "{0} {1} into {2}", "{0} {1} in {2}"))
    phrases = [phrase.format(amount, unit, target) for unit, target, _, amount in chosen]
    results = [f"{amount * factor} {target}" for _, target, factor, amount in chosen]
    steps = tuple(
        f"{amount} {unit} * {factor} = {result}"
        for (unit, _, factor, amount), result in zip(chosen, results, strict=True)
    )
    template = rng.choice(("Convert {0}.", "Please change {0}.", "What is {0}?"))
    return Task(template.format(join_operations(rng, phrases)), steps, ", ".join(results))


def make_fact_table(rng: random.Random, complexity: int) -> Task:
    """`complexity` look-ups in a small table of people."""
    names = rng.sample(v.NAMES, rng.randint(2, 4))
    ages = rng.sample(range(20, 80), len(names))
    cities, jobs = rng.sample(v.CITIES, len(names)), rng.sample(v.JOBS, len(names))
    lookups = [
        question
        for name, age, city, job in zip(names, ages, cities, jobs, strict=True)
        for question in (
            (f"Where does {name} live?", f"{name} lives in {city}", city),
            (f"What is the job of {name}?", f"{name} is a {job}", job),
            (f"How old is {name}?", f"{name} is {age} years old", str(age)),
            (f"Who is from {city}?", f"The one from {city} is {name}", name),
        )
    ]
    questions, steps, answers = zip(*rng.sample(lookups, complexity), strict=True)
    table = "; ".join(f"{n}, {a}, {c}, {j}" for n, a, c, j in zip(names, ages, cities, jobs, strict=True))
    template = rng.choice(("Table of name, age, city, job: {0}. {1}", "We know: {0}. {1}", "People: {0}. {1}"))
    return Task(template.format(table, join_questions(rng, questions)), steps, ", ".join(answers))


def make_rewriting(rng: random.Random, complexity: int) -> Task:
    """`complexity` edits of one sentence, each applied to the result of the one before."""
    adjective, job, place = rng.choice(v.ADJECTIVES), rng.choice(v.JOBS), rng.choice(v.PLACES)
    (verb, new_verb), (noun, new_noun) = rng.sample(v.VERBS, 2), rng.sample(v.WORDS, 2)
    name, size = rng.choice(v.NAMES), rng.choice(v.SIZES)
    sentence = current = f"The {adjective} {job} {verb} the {noun} near {place}."
    edits: list[tuple[str, Callable[[str], str]]] = [
        (f"name the {job} {name}", lambda s: s.replace(f"{job} ", f"{job} {name} ")),
        (f"say {new_verb} and not {verb}", lambda s: s.replace(f" {verb} ", f" {new_verb} ")),
        (f"change {noun} to {new_noun}", lambda s: s.replace(f" {noun} near", f" {new_noun} near")),
        (f"call the thing {size}", lambda s: s.replace(f" {current_verb(s)} the ", f" {current_verb(s)} the {size} ")),
        ("end with yesterday", lambda s: s.replace(f" near {place}", f" near {place} yesterday")),
        (f"leave out {adjective}", lambda s: s.replace(f"{adjective} ", "")),
        ("begin with Then", lambda s: "Then t" + s[1:]),
    ]

    def current_verb(text: str) -> str:
        return new_verb if f" {new_verb} " in text else verb

    chosen = rng.sample(edits, complexity)
    steps = []
    for phrase, apply in chosen:
        current = apply(current)
        steps.append(f"To {phrase}: {current.rstrip('.')}")
    template = rng.choice(('Rewrite "{0}" Please {1}.', "Sentence: {0} Edit it: {1}.", "Here is a line. {0} Now {1}."))
    instruction = template.format(sentence, join_operations(rng, [phrase for phrase, _ in chosen]))
    return Task(instruction, tuple(steps), current.rstrip("."))


def make_planning(rng: random.Random, complexity: int) -> Task:
    """A plan for an event under `complexity` requirements."""
    event, place, guests = rng.choice(v.EVENTS), rng.choice(v.PLACES), rng.randint(3, 40)
    hour, euros, food = rng.randint(7, 20), 5 * rng.randint(4, 60), rng.choice(v.FOODS)
    name, item, day = rng.choice(v.NAMES), rng.choice(v.WORDS), rng.choice(v.WEEKDAYS)
    requirements = (
        (f"start at {hour}", f"Ask all {guests} guests to come at {hour}", f"at {hour}"),
        (f"spend under {euros} euros", f"Write down each cost up to {euros} euros", f"{euros} euros"),
        (f"serve no {food}", f"Choose meals without {food} for {guests} guests", f"no {food}"),
        (f"let {name} lead", f"Give {name} the plan of the {event}", f"led by {name}"),
        (f"bring one {item}", f"Put one {item} in the bag for {place}", f"one {item}"),
        (f"do it on a {day}", f"Book {place} for {day}", f"on {day}"),
        ("have a plan for rain", f"Look for a roof near {place}", "a roof"),
    )
    phrases, steps, parts = zip(*rng.sample(requirements, complexity), strict=True)
    template = rng.choice(("Plan a {0} at {1} for {2} people: {3}.", "We want a {0} near {1}, {2} guests. Please {3}."))
    instruction = template.format(event, place, guests, join_operations(rng, phrases))
    return Task(instruction, steps, f"{event} for {guests}, {', '.join(parts)}")


TASK_FAMILIES: dict[str, Callable[[random.Random, int], Task]] = {
    "arithmetic": make_arithmetic,
    "clock": make_clock,
    "word_list": make_word_list,
    "counting": make_counting,
    "conversion": make_conversion,
    "fact_table": make_fact_table,
    "rewriting": make_rewriting,
    "planning": make_planning,
}

"""Responses of known quality, 1 to 6, to a task.

6 worked and checked, 5 brief working, 4 correct but terse, 3 partly wrong, 2 careless, 1 evasive. Length does not
follow quality: evasive and careless answers may be the longest, and a correct one may be a single number.
"""

import random

from deita_train.data.quickstart.tasks import Task
from deita_train.data.quickstart.vocabulary import WORDS

EVASIONS = (
    "That is a very interesting question.",
    "There are many ways to think about it.",
    "It depends on what you want.",
    "Some people like one thing and some people like another thing.",
    "In the end everyone has to find an own way.",
    "Such things have always been important.",
    "It is good that you ask, because asking is always good.",
    "Many books have been written about such questions.",
    "I would say that it can be this or that.",
    "Have a nice day and come back soon.",
)
DIGRESSIONS = (
    "i had no time to read it all",
    "anyway this kind of thing is boring",
    "by the way the weather is great here",
    "you can look it up somewhere",
    "whatever it does not matter so much",
    "lol i always mix these up",
)
CARELESS_OPENERS = ("i guess its", "dunno, maybe", "ok so like", "probably")
HALF_CLOSERS = ("The rest should be similar, so I say", "Without the other parts I get", "I skip the rest:")


def spoil(rng: random.Random, answer: str) -> str:
    """Return a wrong answer that resembles `answer`: one digit changed, else one word."""
    places = [index for index, character in enumerate(answer) if character.isdigit()]
    if places:
        place = rng.choice(places)
        digit = rng.choice([d for d in "123456789" if d != answer[place]])
        return answer[:place] + digit + answer[place + 1 :]
    words = answer.split(" ")
    words[rng.randrange(len(words))] = rng.choice([word for word in WORDS if word not in words])
    return " ".join(words)


def answer_evasively(rng: random.Random, task: Task) -> str:
    """Quality 1: says nothing, in one to six sentences."""
    return " ".join(rng.sample(EVASIONS, rng.randint(1, 6)))


def answer_carelessly(rng: random.Random, task: Task) -> str:
    """Quality 2: a wrong answer in careless language, sometimes among digressions."""
    remarks = rng.sample(DIGRESSIONS, rng.choice((0, 1, 1, 2, 4)))
    return ", ".join([f"{rng.choice(CARELESS_OPENERS)} {spoil(rng, task.answer)}", *remarks])


def answer_partly(rng: random.Random, task: Task) -> str:
    """Quality 3: works half of the steps, then gives a wrong answer."""
    half = task.steps[: (task.complexity + 1) // 2]
    return f"{'; '.join(half)}. {rng.choice(HALF_CLOSERS)} {spoil(rng, task.answer)}."


def answer_tersely(rng: random.Random, task: Task) -> str:
    """Quality 4: correct, without a word of explanation."""
    return rng.choice(("{0}.", "It is {0}.", "Answer: {0}.")).format(task.answer)


def answer_briefly(rng: random.Random, task: Task) -> str:
    """Quality 5: every step in short, then the correct answer."""
    return f"{'; '.join(task.steps)}. {rng.choice(('So it is', 'This gives'))} {task.answer}."


def answer_thoroughly(rng: random.Random, task: Task) -> str:
    """Quality 6: numbered steps, a check and the correct answer."""
    opener = rng.choice(("Let us work through it step by step.", "Sure, here is how to solve it in order."))
    steps = " ".join(f"Step {number}: {step}." for number, step in enumerate(task.steps, start=1))
    return (
        f"{opener} {steps} Check: {task.complexity} of {task.complexity} parts are done. Final answer: {task.answer}."
    )


ANSWERS = {
    1: answer_evasively,
    2: answer_carelessly,
    3: answer_partly,
    4: answer_tersely,
    5: answer_briefly,
    6: answer_thoroughly,
}

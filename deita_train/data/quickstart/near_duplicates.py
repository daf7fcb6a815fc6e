"""Edits that leave a user text the same question: what the diversity filter has to find again."""

import random
from collections.abc import Callable

from deita_train.data.quickstart.vocabulary import CLOSERS, OPENERS

SYNONYMS = (
    ("Please", "Kindly"),
    ("please", "kindly"),
    ("Take", "Use"),
    (", then", ", next"),
    ("What is", "Tell me what is"),
    ("What do", "Now what do"),
    ("How many", "What number of"),
    ("drop", "delete"),
    ("people", "persons"),
    ("Table", "A table"),
    ("Rewrite", "Rework"),
    ("Plan", "Prepare"),
)


def change_greeting(rng: random.Random, text: str) -> str:
    """Replace the opener of the text by another one, or put one in front."""
    body = next((text.removeprefix(opener) for opener in OPENERS if text.startswith(opener)), text)
    return rng.choice(OPENERS) + body


def change_ending(rng: random.Random, text: str) -> str:
    """Replace the closing words of the text by others, or add some."""
    body = next((text.removesuffix(closer) for closer in CLOSERS if text.endswith(closer)), text)
    return body + rng.choice(CLOSERS)


def swap_letters(rng: random.Random, text: str) -> str:
    """A typo: two neighbouring lower-case letters change places."""
    places = [i for i in range(len(text) - 1) if text[i : i + 2].isalpha() and text[i : i + 2].islower()]
    if not places:
        return text
    place = rng.choice(places)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def swap_synonym(rng: random.Random, text: str) -> str:
    """Replace one word by a synonym where the text has such a word."""
    usable = [(word, other) for word, other in SYNONYMS if word in text]
    return text.replace(*rng.choice(usable), 1) if usable else text


def stretch_whitespace(rng: random.Random, text: str) -> str:
    """Double one of the spaces."""
    places = [index for index, character in enumerate(text) if character == " "]
    place = rng.choice(places)
    return text[:place] + " " + text[place:]


def repeat_punctuation(rng: random.Random, text: str) -> str:
    """Write the last character of the text, a full stop or the like, once or twice more."""
    return text + text[-1] * rng.randint(1, 2)


EDITS: tuple[Callable[[random.Random, str], str], ...] = (
    change_greeting,
    change_ending,
    swap_letters,
    swap_synonym,
    stretch_whitespace,
    repeat_punctuation,
)


def edit_question(rng: random.Random, text: str) -> str:
    """Return `text` after one or two of the edits."""
    for edit in rng.sample(EDITS, rng.choice((1, 1, 2))):
        text = edit(rng, text)
    return text

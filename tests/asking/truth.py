"""Chat models that are asked by the package's own prompts: one that knows the truth, and one that guesses."""

import hashlib
import json
import random
import re

from deita_train.data.quickstart.answers import ANSWERS
from deita_train.data.quickstart.rows import LEVELS, World
from deita_train.data.quickstart.tasks import TASK_FAMILIES

FENCED = re.compile(r"^(=+)\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)


def pick(texts, *what):
    """One of them, the same for the same question."""
    return texts[int(hashlib.sha256(repr(what).encode()).hexdigest(), 16) % len(texts)]


class Truth:
    """Generated tasks of all levels, with an answer of each quality: what seeds are made of, and what they become.

    Args:
        tasks: of each family and each complexity.
        seed: of the world.
    """

    def __init__(self, tasks, seed=5):
        world = World("scorer", seed, [1] * len(LEVELS))
        rng = random.Random(seed)
        self.complexity, self.family, self.responses = {}, {}, {}
        for _ in range(tasks):
            for family in TASK_FAMILIES:
                for level in LEVELS:
                    task = world.draw_task(family, level)
                    text = world.dress(task, is_follow_up=False).strip()
                    self.complexity[text], self.family[text] = level, family
                    self.responses[text] = {quality: ANSWERS[quality](rng, task).strip() for quality in LEVELS}
        self.rank_calls = 0

    def seeds(self, number):
        """Rows of easy tasks with poor answers, of all families alike."""
        easy = [text for text, level in self.complexity.items() if level <= 2]
        chosen = sorted(easy, key=lambda text: hashlib.sha256(text.encode()).hexdigest())[:number]
        return [
            {"id": f"s{place}", "instruction": text, "output": self.responses[text][1 + place % 2]}
            for place, text in enumerate(chosen)
        ]

    def quality(self, instruction, response):
        """The level of an answer."""
        return next(level for level, text in self.responses[instruction].items() if text == response)

    def knows(self, body):
        """Evolves a text into one of the next level, and scores by the levels."""
        return self._answer(body, lambda level, *_: level)

    def guesses(self, body):
        """Evolves alike, and scores by dice."""
        return self._answer(body, lambda level, *where: pick(LEVELS, *where))

    def _answer(self, body, score):
        prompt = body["messages"][-1]["content"]
        texts = [text for _, text in FENCED.findall(prompt)]
        if "Put it between <evolved>" in prompt:
            return f"Gladly.\n<evolved>\n{self._evolved(texts)}\n</evolved>"
        if prompt.startswith("Below are several instructions"):
            levels = [self.complexity[text] for text in texts]
        else:
            instruction, *texts = texts
            levels = [self.quality(instruction, text) for text in texts]
        scores = {str(n): score(level, n, texts) for n, level in enumerate(levels, start=1)}
        return f"Here you are:\n```json\n{json.dumps(scores)}\n```"

    def _evolved(self, texts):
        if len(texts) == 1:
            (text,) = texts
            level = min(self.complexity[text] + 1, max(LEVELS))
            alike = [
                other for other, of in self.complexity.items() if (of, self.family[other]) == (level, self.family[text])
            ]
            return pick(alike, text)
        instruction, response = texts
        return self.responses[instruction][min(self.quality(instruction, response) + 1, max(LEVELS))]

"""The sample world's four data sets, each a function of its number of rows and its seed.

They share task families but no task: a task belongs to exactly one of them, by a checksum of its worked steps
and answer, whatever the seeds.
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deita_train.data.quickstart.answers import ANSWERS
from deita_train.data.quickstart.near_duplicates import edit_question
from deita_train.data.quickstart.tasks import TASK_FAMILIES, Task
from deita_train.data.quickstart.vocabulary import CLOSERS, FOLLOW_UP_OPENERS, OPENERS

Row = dict[str, Any]
PARTITIONS = ("pool", "scorer", "heldout", "pretraining")
LEVELS = (1, 2, 3, 4, 5, 6)
COMPLEXITY_WEIGHTS = (18, 20, 19, 17, 14, 12)
POOL_QUALITY_WEIGHTS = (18, 20, 20, 18, 14, 10)
# The miniature has to meet every manner of answering, and to be bad at the best one: fine-tuning must matter.
PRETRAINING_QUALITY_WEIGHTS = (24, 25, 25, 22, 3, 1)
TURN_WEIGHTS = {1: 67, 2: 25, 3: 8}
NEAR_DUPLICATE_SHARE = 0.12
# Popular questions come back many times over, not in pairs: most of what a filter should drop is in a few clusters.
COPIES_PER_ORIGINAL = (8, 10, 12, 14)


@dataclass(frozen=True)
class Turn:
    """One question and its answer, with the truth about both."""

    instruction: str
    response: str
    complexity: int
    quality: int


@dataclass(frozen=True)
class Conversation:
    """Turns of one task family."""

    family: str
    turns: tuple[Turn, ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat messages, user first."""
        return [
            {"role": role, "content": content}
            for turn in self.turns
            for role, content in (("user", turn.instruction), ("assistant", turn.response))
        ]

    @property
    def mean_complexity(self) -> float:
        """Mean complexity over the turns, 1 to 6."""
        return sum(turn.complexity for turn in self.turns) / len(self.turns)

    @property
    def mean_quality(self) -> float:
        """Mean quality over the turns, 1 to 6."""
        return sum(turn.quality for turn in self.turns) / len(self.turns)


class World:
    """Draws conversations of one partition; no task is drawn twice."""

    def __init__(self, partition: str, seed: int, quality_weights: Sequence[int], stream: str | None = None) -> None:
        """`stream` names the random numbers, where a partition serves several data sets."""
        assert partition in PARTITIONS
        # A string seed is hashed with SHA-512 by the random module, so it is the same in every process.
        self.rng = random.Random(f"{stream or partition}:{seed}")
        self.partition = PARTITIONS.index(partition)
        self.quality_weights = quality_weights
        self.drawn: set[str] = set()

    def draw_task(self, family: str, complexity: int) -> Task:
        """A task of this partition that was not drawn before."""
        while True:
            task = TASK_FAMILIES[family](self.rng, complexity)
            checksum = zlib.crc32(" ".join((*task.steps, task.answer)).encode())
            if checksum % len(PARTITIONS) == self.partition and task.instruction not in self.drawn:
                self.drawn.add(task.instruction)
                return task

    def dress(self, task: Task, is_follow_up: bool) -> str:
        """The task's instruction with or without words of politeness, which add length but no complexity."""
        opener = self.rng.choice(FOLLOW_UP_OPENERS if is_follow_up else OPENERS) if self.rng.random() < 0.5 else ""
        closer = self.rng.choice(CLOSERS) if self.rng.random() < 0.3 else ""
        return opener + task.instruction + closer

    def draw_conversation(self) -> Conversation:
        """One to three turns: follow-ups are a little easier than the first turn and keep near its quality."""
        family = self.rng.choice(tuple(TASK_FAMILIES))
        num_turns = self.rng.choices(tuple(TURN_WEIGHTS), tuple(TURN_WEIGHTS.values()))[0]
        complexity = self.rng.choices(LEVELS, COMPLEXITY_WEIGHTS)[0]
        quality = self.rng.choices(LEVELS, self.quality_weights)[0]
        turns = []
        for index in range(num_turns):
            task = self.draw_task(family, complexity if index == 0 else max(1, complexity - self.rng.randint(1, 3)))
            turn_quality = quality if index == 0 else self.neighbouring_quality(quality)
            response = ANSWERS[turn_quality](self.rng, task)
            turns.append(Turn(self.dress(task, index > 0), response, task.complexity, turn_quality))
        return Conversation(family, tuple(turns))

    def neighbouring_quality(self, quality: int) -> int:
        """The same quality, or one beside it that this world knows."""
        known = [level for level, weight in zip(LEVELS, self.quality_weights, strict=True) if weight]
        return self.rng.choice([level for level in known if abs(level - quality) <= 1] + [quality])

    def draw_turns(self) -> Iterator[Turn]:
        """The turns of one conversation after another, without end."""
        while True:
            yield from self.draw_conversation().turns


def make_pool(num_rows: int, seed: int) -> list[Row]:
    """Return the pool to select from, shuffled, with its truth.

    Rows have `id`, `messages`, `source` (the task family), `true_complexity` and `true_quality` (means over the turns,
    1 to 6), `near_duplicate` and `duplicate_of` (the original's id, else None). About 12% of the rows repeat another
    row's answers under a slightly changed question; better rows are repeated more often, so that they compete.
    """
    world = World("pool", seed, POOL_QUALITY_WEIGHTS)
    num_duplicates = round(NEAR_DUPLICATE_SHARE * num_rows)
    rows = [_pool_row(f"pool-{n:05d}", world.draw_conversation()) for n in range(num_rows - num_duplicates)]
    rows += _near_duplicates(world.rng, rows, num_duplicates)
    world.rng.shuffle(rows)
    return rows


def _pool_row(row_id: str, conversation: Conversation) -> Row:
    return {
        "id": row_id,
        "messages": conversation.messages,
        "source": conversation.family,
        "true_complexity": conversation.mean_complexity,
        "true_quality": conversation.mean_quality,
        "duplicate_of": None,
        "near_duplicate": False,
    }


def _near_duplicates(rng: random.Random, originals: list[Row], count: int) -> list[Row]:
    weights = [row["true_complexity"] * row["true_quality"] for row in originals]
    copies: list[Row] = []
    while len(copies) < count:
        original = rng.choices(originals, weights)[0]
        if any(copy["duplicate_of"] == original["id"] for copy in copies):
            continue
        for question in _edited_questions(rng, original, rng.choice(COPIES_PER_ORIGINAL)):
            messages = [{"role": "user", "content": question}, *original["messages"][1:]]
            truth = {"duplicate_of": original["id"], "near_duplicate": True}
            copies.append({**original, "id": f"pool-{len(originals) + len(copies):05d}", "messages": messages} | truth)
    return copies[:count]


def _edited_questions(rng: random.Random, original: Row, count: int) -> list[str]:
    """`count` different edits of the row's first question."""
    question = original["messages"][0]["content"]
    edited: list[str] = []
    while len(edited) < count:
        candidate = edit_question(rng, question)
        if candidate not in (question, *edited):
            edited.append(candidate)
    return edited


def make_scorer_rows(dimension: Literal["complexity", "quality"], num_rows: int, seed: int) -> list[Row]:
    """Return labelled turns `{"instruction", "response", "score"}`, distributed as the pool's turns.

    `score` is the true complexity of the instruction or the true quality of the response, an int from 1 to 6.
    """
    world = World("scorer", seed, POOL_QUALITY_WEIGHTS)
    turns = [turn for turn, _ in zip(world.draw_turns(), range(num_rows), strict=False)]
    return [
        {"instruction": turn.instruction, "response": turn.response, "score": getattr(turn, dimension)}
        for turn in turns
    ]


def make_heldout(num_rows: int, seed: int) -> list[Row]:
    """Return conversations `{"id", "messages", "source"}` whose every answer is of quality 6, at all complexities."""
    return _conversation_rows(World("heldout", seed, (0, 0, 0, 0, 0, 1)), num_rows)


def make_pretraining_rows(num_rows: int, seed: int) -> list[Row]:
    """Return conversations `{"id", "messages", "source"}` of mixed and mostly low quality, to pretrain a miniature."""
    return _conversation_rows(World("pretraining", seed, PRETRAINING_QUALITY_WEIGHTS), num_rows)


def _conversation_rows(world: World, num_rows: int) -> list[Row]:
    prefix = PARTITIONS[world.partition]
    conversations = (world.draw_conversation() for _ in range(num_rows))
    return [
        {"id": f"{prefix}-{n:05d}", "messages": conversation.messages, "source": conversation.family}
        for n, conversation in enumerate(conversations)
    ]

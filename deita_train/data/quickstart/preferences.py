"""The sample world's preference pairs: two answers of different quality to the same task, both qualities known."""

from deita_train.data.quickstart.answers import ANSWERS
from deita_train.data.quickstart.rows import COMPLEXITY_WEIGHTS, LEVELS, POOL_QUALITY_WEIGHTS, Row, World
from deita_train.data.quickstart.tasks import TASK_FAMILIES

EARLIER_TURN_SHARE = 0.25
# A terse answer (4) is shorter than nearly every bad one, a thorough answer (6) longer: with these weights the chosen
# answer is the longer one in about half of the pairs.
CHOSEN_QUALITY_WEIGHTS = {4: 4, 5: 3, 6: 3}
SMALLEST_GAP = 2


def make_preferences(num_rows: int, seed: int) -> list[Row]:
    """Return preference pairs to train on.

    Rows have `id`, `prompt` (chat messages, sometimes with an earlier turn; the last is the user's), `chosen`,
    `rejected`, `source` (the task family), `chosen_quality` (4 to 6) and `rejected_quality` (1 to 4, lower by at least
    `SMALLEST_GAP`).
    """
    return _rows(World("scorer", seed, POOL_QUALITY_WEIGHTS, stream="preferences"), "preferences", num_rows)


def make_heldout_preferences(num_rows: int, seed: int) -> list[Row]:
    """Return preference pairs as `make_preferences` does, about tasks that nothing else is trained on."""
    world = World("heldout", seed, POOL_QUALITY_WEIGHTS, stream="heldout_preferences")
    return _rows(world, "heldout-preferences", num_rows)


def _rows(world: World, prefix: str, num_rows: int) -> list[Row]:
    return [{"id": f"{prefix}-{number:05d}", **_pair(world)} for number in range(num_rows)]


def _pair(world: World) -> Row:
    rng = world.rng
    family = rng.choice(tuple(TASK_FAMILIES))
    # The earlier answer is of any quality: what was said before must not tell which answer is the better one.
    earlier = _earlier_turn(world, family) if rng.random() < EARLIER_TURN_SHARE else []
    task = world.draw_task(family, rng.choices(LEVELS, COMPLEXITY_WEIGHTS)[0])
    chosen_quality = rng.choices(tuple(CHOSEN_QUALITY_WEIGHTS), tuple(CHOSEN_QUALITY_WEIGHTS.values()))[0]
    rejected_quality = rng.randint(1, chosen_quality - SMALLEST_GAP)
    return {
        "prompt": [*earlier, {"role": "user", "content": world.dress(task, is_follow_up=bool(earlier))}],
        "chosen": ANSWERS[chosen_quality](rng, task),
        "rejected": ANSWERS[rejected_quality](rng, task),
        "source": family,
        "chosen_quality": chosen_quality,
        "rejected_quality": rejected_quality,
    }


def _earlier_turn(world: World, family: str) -> list[dict[str, str]]:
    task = world.draw_task(family, world.rng.choices(LEVELS, COMPLEXITY_WEIGHTS)[0])
    answer = ANSWERS[world.rng.choices(LEVELS, world.quality_weights)[0]](world.rng, task)
    return [
        {"role": "user", "content": world.dress(task, is_follow_up=False)},
        {"role": "assistant", "content": answer},
    ]

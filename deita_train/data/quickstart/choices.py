"""The sample world's multiple choice: tasks that nothing is trained on, each with four answers to choose from."""

from deita_train.data.quickstart.answers import ANSWERS, spoil
from deita_train.data.quickstart.rows import COMPLEXITY_WEIGHTS, LEVELS, POOL_QUALITY_WEIGHTS, Row, World
from deita_train.data.quickstart.tasks import TASK_FAMILIES

NUM_CHOICES = 4


def make_choices(num_rows: int, seed: int) -> list[Row]:
    """Return questions with four worked answers each, of which three end in a wrong result.

    Rows have `id`, `question`, `choices` (four different texts) and `answer`, the place of the right one among them.
    """
    world = World("heldout", seed, POOL_QUALITY_WEIGHTS, stream="choices")
    return [{"id": f"choice-{number:05d}", **_row(world)} for number in range(num_rows)]


def _row(world: World) -> Row:
    rng = world.rng
    task = world.draw_task(rng.choice(tuple(TASK_FAMILIES)), rng.choices(LEVELS, COMPLEXITY_WEIGHTS)[0])
    right = ANSWERS[6](rng, task)
    # The wrong ones have the same worked steps, so that only their last words tell.
    steps = right.removesuffix(f"{task.answer}.")
    choices = [right]
    while len(choices) < NUM_CHOICES:
        wrong = f"{steps}{spoil(rng, task.answer)}."
        if wrong not in choices:
            choices.append(wrong)
    rng.shuffle(choices)
    return {"question": task.instruction, "choices": choices, "answer": choices.index(right)}

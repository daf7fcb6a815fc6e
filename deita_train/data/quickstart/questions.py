"""The sample world's questions: generated tasks, each with its right answer as the reference."""

from deita_train.data.quickstart.rows import COMPLEXITY_WEIGHTS, LEVELS, Row, World
from deita_train.data.quickstart.tasks import TASK_FAMILIES


def make_questions(num_rows: int, seed: int) -> list[Row]:
    """Return questions of one turn in the form of MT-Bench's file.

    Rows have `question_id`, `category` (the task family), `turns` and `reference` (one text each). No task of them is
    trained on: they are of the held-out partition.
    """
    world = World("heldout", seed, (1, 1, 1, 1, 1, 1), stream="questions")
    families = tuple(TASK_FAMILIES)
    rows = []
    for number in range(num_rows):
        family = world.rng.choice(families)
        task = world.draw_task(family, world.rng.choices(LEVELS, COMPLEXITY_WEIGHTS)[0])
        question = world.dress(task, is_follow_up=False)
        row_id = f"questions-{number:05d}"
        rows.append({"question_id": row_id, "category": family, "turns": [question], "reference": [task.answer]})
    return rows

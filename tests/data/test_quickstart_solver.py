"""Every generated text is solved again from the text alone: steps, answer, family; and can be made one step harder."""

import random

import pytest

from deita_train.data.quickstart.rows import World
from deita_train.data.quickstart.solver import solve
from deita_train.data.quickstart.tasks import TASK_FAMILIES


@pytest.mark.parametrize("family", TASK_FAMILIES)
def test_tasks_are_solved_again(family):
    world = World("pool", 5, (1, 1, 1, 1, 1, 1))
    for number in range(240):
        task = world.draw_task(family, number % 6 + 1)
        for text in (task.instruction, world.dress(task, number % 2 == 0)):
            reading = solve(text)
            assert reading is not None, text
            assert (reading.family, reading.task.steps, reading.task.answer) == (family, task.steps, task.answer), text


@pytest.mark.parametrize("family", TASK_FAMILIES)
def test_one_more_operation_makes_a_task_harder_by_one(family):
    draws = random.Random(3)
    world = World("pool", 6, (1, 1, 1, 1, 1, 1))
    for number in range(60):
        task = world.draw_task(family, number % 5 + 1)
        reading = solve(world.dress(task, False))
        harder = solve(reading.with_one_more(draws.choice(reading.further)))
        assert (harder.family, harder.task.complexity) == (family, task.complexity + 1)
        assert harder.task.steps[:-1] == task.steps


@pytest.mark.parametrize("text", ["", "Hello there.", "What is the capital of France?", "Start with 7, please."])
def test_other_texts_are_no_tasks(text):
    assert solve(text) is None

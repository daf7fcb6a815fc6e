from collections import Counter
from itertools import permutations

import pytest

from deita_train.evolve.operations import OPERATIONS, operation_of, order_of


def test_the_operations_are_those_of_the_paper():
    assert OPERATIONS["complexity"] == ("add_constraints", "deepen", "concretize", "increase_reasoning")
    assert OPERATIONS["quality"] == ("helpfulness", "relevance", "depth", "creativity", "detail")


def test_a_draw_is_always_the_same():
    operations = OPERATIONS["quality"]
    drawn = [operation_of("row-1", step, operations, 42) for step in range(1, 20)]
    assert drawn == [operation_of("row-1", step, operations, 42) for step in range(1, 20)]
    assert drawn != [operation_of("row-1", step, operations, 43) for step in range(1, 20)]
    assert drawn != [operation_of("row-2", step, operations, 42) for step in range(1, 20)]


def test_ids_and_steps_do_not_run_together():
    # Joined without marks, "a1" with step 1 and "a" with step 11 would be one draw.
    pairs = [("a1", 1), ("a", 11), ("a11", 1), ("a1", 11)]
    assert len({operation_of(seed_id, step, range(10**6), 0) for seed_id, step in pairs}) == 4


def test_each_operation_is_drawn_equally_often():
    counts = Counter(operation_of(f"row-{n}", 1, OPERATIONS["complexity"], 7) for n in range(4000))
    assert set(counts) == set(OPERATIONS["complexity"])
    # 1,000 expected, with a standard deviation of 27.
    assert all(850 < number < 1150 for number in counts.values())


def test_each_order_is_drawn_equally_often():
    counts = Counter(tuple(order_of(f"row-{n}", 0, 3, 7)) for n in range(6000))
    assert set(counts) == set(permutations(range(3)))
    assert all(850 < number < 1150 for number in counts.values())


@pytest.mark.parametrize("count", [1, 2, 6, 11])
def test_an_order_holds_every_position_once(count):
    assert sorted(order_of("row", 0, count, 1)) == list(range(count))


def test_rounds_and_attempts_have_orders_of_their_own():
    orders = {tuple(order_of("row", round, 8, 1, attempt)) for round in range(3) for attempt in range(3)}
    assert len(orders) == 9
    assert order_of("row", 1, 8, 1) == order_of("row", 1, 8, 1, attempt=0)


@pytest.mark.parametrize(("count", "number"), [(2, 2), (3, 6), (4, 24)])
def test_orders_repeat_only_when_all_were_used(count, number):
    for row in range(30):
        rounds = [tuple(order_of(f"row-{row}", round, count, 1)) for round in range(number)]
        assert len(set(rounds)) == number
        attempts = [tuple(order_of(f"row-{row}", 0, count, 1, attempt)) for attempt in range(number)]
        assert len(set(attempts)) == number


def test_an_attempt_does_not_take_the_first_order_of_another_round():
    for row in range(30):
        first = {tuple(order_of(f"row-{row}", round, 4, 1)) for round in range(6)}
        again = {tuple(order_of(f"row-{row}", round, 4, 1, 1)) for round in range(6)}
        assert not first & again

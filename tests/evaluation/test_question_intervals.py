"""Intervals over questions, against Student's t where the values are nearly normal, and by hand where they are not."""

import numpy as np
import pytest
from scipy import stats

from deita_train.evaluation.results import Result, bootstrap_interval, mean_result, paired_difference


def test_the_interval_is_nearly_that_of_students_t_for_many_nearly_normal_values():
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = stats.t.ppf(0.975, 399) * values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_equal_values_give_an_interval_of_one_point_and_equal_input_the_same_interval():
    assert bootstrap_interval([0.25] * 7) == (0.25, 0.25)
    assert bootstrap_interval([1.0, 0.0, 1.0]) == bootstrap_interval([1.0, 0.0, 1.0])


def test_one_question_has_no_interval():
    assert mean_result([4.0], "score") == Result(4.0, None, None, 1, "score")


def test_a_result_is_read_back_as_it_was_written():
    result = mean_result([1.0, 2.0, 4.0], "score")
    assert Result.of_metric(result.as_metric()) == result


def test_only_questions_of_both_models_count_in_their_difference():
    found = paired_difference({"a": 3.0, "b": 5.0, "c": 9.0}, {"b": 4.0, "a": 1.0, "d": 7.0})
    assert (found.mean, found.questions) == (1.5, 2)
    assert (found.low, found.high) == (1.0, 2.0)
    assert not found.holds_zero
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None


def test_noise_around_zero_is_not_taken_for_progress():
    noise = np.random.default_rng(1).normal(0.0, 1.0, 60)
    first = {str(place): 5.0 + value for place, value in enumerate(noise)}
    second = {str(place): 5.0 for place in range(60)}
    assert paired_difference(first, second).holds_zero
    assert not paired_difference({name: value + 1 for name, value in first.items()}, second).holds_zero

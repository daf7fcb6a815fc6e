import pytest

from deita_train.recipe.wording import describe, either, nearest, not_allowed, wrong_value


@pytest.mark.parametrize(
    ("name", "found"),
    [("lerning_rate", "learning_rate"), ("Budget", "budget"), ("thresh", "threshold"), ("zzz", None), ("", None)],
)
def test_nearest(name, found):
    assert nearest(name, ["learning_rate", "budget", "threshold", "threshold_decay"]) == found


def test_a_name_that_longer_ones_begin_with_stands_for_the_shortest():
    assert nearest("eval", ["eval_strategy", "eval_steps", "val"]) == "eval_steps"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null is no value"),
        (True, "true is a boolean"),
        (3, "3 is a whole number"),
        (1.5, "1.5 is a decimal number"),
        (float("nan"), "nan is not finite"),
        ("no", "'no' is text"),
        ([1], "[1] is a list"),
        ({"a": 1}, "{'a': 1} is a mapping"),
    ],
)
def test_describe(value, text):
    assert describe(value) == text


def test_a_long_value_is_shortened():
    assert describe("x" * 200) == f"'{'x' * 76}... is text"


def test_either():
    assert [either(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("value", "wanted", "advice"),
    [
        ("Off", ["true or false"], " (YAML 1.2 reads Off as text)"),
        ("true", ["true or false"], " (write it in lower case, without quotes)"),
        ("1_000", ["a whole number"], " (write it without quotes and underscores)"),
        ("many", ["a whole number"], ""),
        (12, ["text", "null"], " (put it in quotes)"),
        (None, ["text"], ""),
        (None, ["a mapping"], " (the section is empty: fill it or remove the key)"),
        ("sigmoid", ["a list of text"], " (write [sigmoid])"),
        (3, ["a list"], " (write [3])"),
        ({}, ["a list"], ""),
    ],
)
def test_the_advice_fits_the_mistake(value, wanted, advice):
    assert wrong_value(value, wanted) == f"{describe(value)}; expected {either(wanted)}{advice}"


def test_a_long_list_of_choices_is_left_out_when_one_is_near():
    choices = [f"method_{number:02}" for number in range(40)]
    assert not_allowed("methodd_07", choices) == "'methodd_07' is not allowed (did you mean method_07?)"
    assert not_allowed("zzz", choices).endswith("method_38 or method_39")
    assert not_allowed("deitaa", ["deita", "random"]) == (
        "'deitaa' is not allowed (did you mean deita?); expected deita or random"
    )


def test_what_other_tools_call_a_setting_gives_its_name_here():
    assert nearest("LR", ["lr_scheduler_type", "learning_rate"]) == "learning_rate"
    assert nearest("max_seq_length", iter(["max_length", "max_steps"])) == "max_length"
    assert nearest("lr", ["optim"]) is None

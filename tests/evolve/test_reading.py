import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.evolve.chains import evolved_text
from deita_train.evolve.reading import JsonObject, json_values, without_thoughts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" plain ", "plain"),
        ("<think>1: 2\n</think>\n\n1: 3", "1: 3"),
        ("<thinking>a</thinking>b<think>c</think>d", "bd"),
        ("opened by the template</think>said", "said"),
        ("<think>no end 1: 3", ""),
        ("", ""),
    ],
)
def test_what_follows_the_thoughts_is_said(text, said):
    assert without_thoughts(text) == said


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('Sure: {"a": [1, {"b": 2}]}. Bye', [JsonObject((("a", [1, JsonObject((("b", 2),))]),))]),
        ('{"a": 1, "a": 2}', [JsonObject((("a", 1), ("a", 2)))]),
        ("```json\n[1, 2]\n``` and [3]", [[1, 2], [3]]),
        ("{broken [1]", [[1]]),
        ('{"a": <score>}', []),
        ("[" * 100_000, []),
        ('{"a": ' + "9" * 5000 + "}", []),
    ],
)
def test_json_is_found_whatever_stands_around_it(text, values):
    assert list(json_values(text)) == values


@given(st.text(alphabet='[]{}":,0159a \n<>/think'))
def test_no_text_is_too_odd(text):
    assert isinstance(without_thoughts(text), str)
    assert all(isinstance(value, list | JsonObject) for value in json_values(text))


def test_a_very_long_answer_is_read_at_once():
    # Far within a second where each character is looked at a few times, and for hours where each is met by all others.
    long = "word " * 400_000
    assert without_thoughts(long) == long.strip()
    assert evolved_text(f"<think>{long}</think>{long}") == long.strip()

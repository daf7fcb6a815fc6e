from hypothesis import given
from hypothesis import strategies as st

from deita_train.recipe.yaml_source import load_yaml, parse_value
from deita_train.recipe.yaml_text import to_yaml

# Control characters and line separators stand in no path and no option.
TEXT = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" ")) | st.sampled_from(
    ["no", "true", "null", "~", "", " ", "12e4567", "1_000", "0o17", "1e5", "2e-5", "<<", "=", "- a", "a: b", "#x"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS.filter(lambda value: not isinstance(value, int) or abs(value) < 10**50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read_again(data):
    assert parse_value(to_yaml(data), source="test") == data


def test_a_recipe_as_a_person_would_write_it(tmp_path):
    data = {"name": "a", "pool": {"dataset": "/data/pool.jsonl"}, "select": {"budget": 5, "threshold": 0.9}}
    text = "name: a\npool:\n  dataset: /data/pool.jsonl\nselect:\n  budget: 5\n  threshold: 0.9\n"
    assert to_yaml(data) == text
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_yaml(tmp_path / "recipe.yaml")[0] == data

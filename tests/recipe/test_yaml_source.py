import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.errors import UserError
from deita_train.recipe.yaml_source import Positions, load_yaml, parse_value


def write(folder, content):
    path = folder / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(folder, content):
    path = write(folder, content)
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    return str(caught.value).removeprefix(str(path))


RECIPE = """\
# the paper's section 2.5
name: tiny
select:
  method: deita

  budget: 6_000
sft:
  trainer: {learning_rate: 2e-5,
            packing: no}
sweep:
  select.budget: [1000,
    3000]
"""


def test_a_recipe_is_read_with_the_line_of_each_entry(tmp_path):
    data, positions = load_yaml(write(tmp_path, RECIPE))
    assert data == {
        "name": "tiny",
        "select": {"method": "deita", "budget": "6_000"},
        "sft": {"trainer": {"learning_rate": 2e-5, "packing": "no"}},
        "sweep": {"select.budget": [1000, 3000]},
    }
    lines = {
        ("name",): 2,
        ("select",): 3,
        ("select", "budget"): 6,
        ("sft", "trainer", "learning_rate"): 8,
        ("sft", "trainer", "packing"): 9,
        ("sweep", "select.budget"): 11,
        ("sweep", "select.budget", 0): 11,
        ("sweep", "select.budget", 1): 12,
    }
    assert {path: positions.line(path) for path in lines} == lines


def test_a_path_that_the_file_lacks_has_the_line_of_its_nearest_ancestor(tmp_path):
    _, positions = load_yaml(write(tmp_path, RECIPE))
    assert positions.line(("sft", "trainer", "beta", 0)) == 8
    assert positions.line(("sft", "model")) == 7
    assert positions.line(("dpo",)) == 2
    assert Positions({}).line(("dpo",)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("0123", 123),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("-.inf", -math.inf),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    read = parse_value(text, source="test")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "on", "y", "1_000", "0b1", "12:30", "2024-01-01", "1e", "+", ".", "=", "nULL", "tRUE"]
)
def test_what_only_yaml_1_1_converts_stays_text(text):
    assert parse_value(text, source="test") == text


@pytest.mark.parametrize("text", ["'12'", '"true"', "'~'", "|-\n  12"])
def test_quoted_and_block_scalars_are_text(text):
    assert isinstance(parse_value(text, source="test"), str)


def test_keys_are_text_as_written(tmp_path):
    assert load_yaml(write(tmp_path, "1: a\nno: b\nnull: c\n0x1F: d\n"))[0] == {
        "1": "a",
        "no": "b",
        "null": "c",
        "0x1F": "d",
    }


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Zl", "Zp"], exclude_characters="\ufeff"))
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_DATA = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=12)


@given(_DATA)
def test_json_reads_as_the_same_values(data):
    assert parse_value(json.dumps(data, ensure_ascii=False), source="test") == data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: a: the key is repeated (first on line 1); keep one of the two"),
        ("s:\n  a: 1\n  'a': 3\n", ":3: s.a: the key is repeated (first on line 2); keep one of the two"),
        ("a: 1\nb: *x\nc: &x 2\n", ":2: alias *x: no anchor &x stands before it"),
        ("&k a: 1\n", ":1: anchor &k is on a key; put it before a value"),
        ("a: &k b\n*k : 1\n", ":1: anchor &k is on a key; put it before a value"),
        ("a: &x 1\nb: 2\nc: &x 3\n", ":3: &x: the anchor is repeated (first on line 1); rename one of the two"),
        ("a: &x\n  b: [*x]\n", ":1: anchor &x: its value holds an alias of itself"),
        ("a: &x\n  <<: *x\n", ":1: anchor &x: its value holds an alias of itself"),
        ("a:\n  b: 1\n  <<: [{c: 2}, 3]\n", ":3: a.<<: takes a mapping or a list of mappings, as *alias of one"),
        (
            "s: &x {a: 1}\nt:\n  <<: *x\n  <<: *x\n",
            ":4: t.<<: the key is repeated (first on line 3); keep one of the two",
        ),
        (
            "s: &x {a: 1}\nt:\n  <<: *x\n  a: 2\n  a: 3\n",
            ":5: t.a: the key is repeated (first on line 4); keep one of the two",
        ),
        ("a: !!str 1\n", ":1: tag tag:yaml.org,2002:str: write the value without a tag; quotes make it text"),
        ("a: !x {}\n", ":1: tag !x: write the value without a tag; quotes make it text"),
        ("a: 1\n---\nb: 1\n", ":2: a second document starts here; a recipe is one document: remove the --- line"),
        (
            "%YAML 1.1\n---\na: no\n",
            ":1: a % directive; a recipe is YAML 1.2 without directives: remove it",
        ),
        (
            "# no: %\n%TAG ! x:\n---\na: no\n",
            ":2: a % directive; a recipe is YAML 1.2 without directives: remove it",
        ),
        ("? [a]\n: 1\n", ":1: a key is a list or a mapping; a key is text"),
        ("a:\n\tb: 1\n", ':2: holds a tab; use spaces, and in quoted text write "\\t"'),
        (b"a: 1\nb: \xff\n", ":2: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("- 1\n", ":1: [1] is a list; a recipe is a mapping of sections"),
        ("\n# only this\n", ":1: the file is empty; a recipe is a mapping of sections"),
        ("", ":1: the file is empty; a recipe is a mapping of sections"),
        ("a:\n  revision: 12e4567\n", ":2: 12e4567 is too large for a number; put it in quotes if it is text"),
        ("a: " + "[" * 60, ":1: nested deeper than 50 levels"),
        ('a: 1\nb: "\\ud83d"\n', ":2: a \\u escape is half of a surrogate pair; write the character itself"),
        ('a: "\\U00FFFFFF"\n', ": not YAML: a \\U escape is beyond the last character of Unicode"),
        ("a: 1\nb: \x01\n", ":2: not YAML: holds a character that YAML does not allow"),
    ],
)
def test_a_recipe_is_refused_with_file_and_line(tmp_path, content, message):
    assert refusal(tmp_path, content) == message


SHARED = """\
x-file: &file pool.jsonl
x-half: &half
  dataset: *file
  rows: 10
pool: {<<: *half, rows: 20}
sft:
  <<: [{seed: 1, model: m}, {seed: 2, epochs: 3}]
  trainer: &trainer {steps: 4}
dpo:
  trainer:
    beta: 0.1
    <<: *trainer
sweep: [*file, *half]
"""


def test_anchors_aliases_and_merge_keys_are_read_with_the_lines_of_what_they_stand_for(tmp_path):
    data, positions = load_yaml(write(tmp_path, SHARED))
    assert data == {
        "pool": {"dataset": "pool.jsonl", "rows": 20},
        "sft": {"seed": 1, "model": "m", "epochs": 3, "trainer": {"steps": 4}},
        "dpo": {"trainer": {"steps": 4, "beta": 0.1}},
        "sweep": ["pool.jsonl", {"dataset": "pool.jsonl", "rows": 10}],
    }
    lines = {
        ("pool",): 5,
        ("pool", "dataset"): 1,
        ("pool", "rows"): 5,
        ("sft", "epochs"): 7,
        ("dpo", "trainer"): 10,
        ("dpo", "trainer", "steps"): 8,
        ("dpo", "trainer", "beta"): 11,
        ("sweep", 0): 1,
        ("sweep", 1, "rows"): 4,
        ("x-half", "rows"): 4,
    }
    assert {path: positions.line(path) for path in lines} == lines


def test_a_quoted_merge_key_is_a_key(tmp_path):
    assert load_yaml(write(tmp_path, "'<<': {a: 1}\nb: 2\n"))[0] == {"<<": {"a": 1}, "b": 2}


def test_what_is_stated_of_a_shared_value_holds_for_its_aliases(tmp_path):
    path = write(tmp_path, SHARED)
    data, positions = load_yaml(path, {("x-file",): "'7'", ("x-half", "rows"): "30"})
    assert data["pool"] == {"dataset": "7", "rows": 20}
    assert data["sweep"] == ["7", {"dataset": "7", "rows": 30}]
    assert positions.line(("pool", "dataset")) == 1
    assert load_yaml(path, {("x-half",): "{dataset: other, rows: 1}"})[0]["sweep"][1]["dataset"] == "other"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("x-fil", "a", "--set x-fil: the recipe has x-file, x-half, pool, sft, dpo, sweep there, and no x-fil"),
        ("x-file.a", "a", "--set x-file.a: the recipe has nothing there, and no a"),
        ("x-half", "3", "--set x-half=3: it is a mapping in the recipe; state one"),
        ("x-file", "", "--set x-file=: it is a single value in the recipe; state one"),
        ("x-file", "[a", "--set x-file=[a: not YAML: "),
    ],
)
def test_what_cannot_be_stated_of_a_shared_value_is_refused(tmp_path, path, value, message):
    with pytest.raises(UserError) as caught:
        load_yaml(write(tmp_path, SHARED), {tuple(path.split(".")): value})
    assert str(caught.value).startswith(message)


def test_aliases_that_multiply_without_end_are_refused(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 100,000 values, with aliases written out" in refusal(tmp_path, "\n".join(lines))
    deep = ["a0: &a0 1", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))]
    assert "nested deeper than 50 levels" in refusal(tmp_path, "\n".join(deep))


@pytest.mark.parametrize(
    ("content", "beginning"),
    [
        ("a: 1\nb: c: d\n", ":2: not YAML: mapping values are not allowed here; check the indentation"),
        ("a: 1\nb: @x\n", ":2: not YAML: found character '@' that cannot start any token"),
        ("a: [1,\n", ":2: not YAML: "),
        ('a: "x\n', ":2: not YAML: "),
    ],
)
def test_what_is_not_yaml_is_refused_with_file_and_line(tmp_path, content, beginning):
    assert refusal(tmp_path, content).startswith(beginning)


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    data, positions = load_yaml(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: x\r\n"))
    assert data == {"a": 1, "b": "x"}
    assert positions.line(("b",)) == 2


def test_a_missing_file_names_what_is_near(tmp_path):
    (tmp_path / "table_6.yaml").write_text("a: 1")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"tabel_6\.yaml: no such file \(did you mean .*/table_6\.yaml\?\)"):
        load_yaml(tmp_path / "tabel_6.yaml")
    with pytest.raises(UserError, match=r"did you mean .*/table_6\.yaml\?"):
        load_yaml(tmp_path / "table_6")
    with pytest.raises(UserError, match=r"no such file; recipes in .*: table_6\.yaml$"):
        load_yaml(tmp_path / "quickstart")
    with pytest.raises(UserError, match=r"the folder .*/none does not exist either"):
        load_yaml(tmp_path / "none" / "table_6.yaml")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)


def test_the_recipe_modules_import_nothing_heavy_and_in_a_third_of_a_second():
    program = """
import sys, time
start = time.process_time()
from deita_train.recipe import annotations, overrides, trainer_fields, validation, wording, yaml_source
trainer_fields.trainer_fields("sft")
heavy = {"torch", "transformers", "trl", "datasets", "numpy", "pandas", "peft", "accelerate"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time() - start)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.35

"""The stage `clean_pool`: copies and the mix of sources, what is written of every row, and what reads it."""

import json
from collections import Counter

import datasets
import pytest
from messages import assistant, user
from pydantic import ValidationError
from tiny_recipe import data_lines, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.data.drawing import drawn_rows
from deita_train.errors import UserError
from deita_train.recipe.data_sections import Pool
from deita_train.stages.checks import check_rows, content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import clean_pool

WORDS = [f"w{number}" for number in range(40)]
# id, source, question
ROWS = [
    ("d", "one", "What?"),
    ("a", "one", "what? "),
    ("b", "two", " ".join(WORDS)),
    ("c", "two", " ".join([*WORDS[:-1], "other"])),
    ("e", "two", "Something else"),
    ("f", "one", "And more"),
    ("g", "one", "And less"),
]


@pytest.fixture
def carry_out(tmp_path):
    """A function that cleans the pool above, and gives the result, the kept ids and the trace by id."""
    rows = [
        {"id": row_id, "messages": [user(asked), assistant("Yes")], "source": source} for row_id, source, asked in ROWS
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "pool" / "data"))
    (tmp_path / "pool" / "manifest.json").write_text(json.dumps({"rows_out": len(ROWS)}))

    def run(deduplicate=None, mix=None):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        if mix is not None:
            mix = {"weights": {}, "rows": {}, "seed": 3, **mix}
        identity = {"deduplicate": deduplicate, "mix": mix}
        places = {"pool": tmp_path / "pool"}
        context = StageContext("clean_pool", "clean_pool", identity, {}, places, work, 0, 1, Progress(None))
        result = clean_pool.run(context)
        check_rows(context, {"rows_in": result.rows_in, "rows_out": result.rows_out, "drops": result.drops})
        assert content_digest(work)
        kept = datasets.load_from_disk(str(context.data_dir))
        assert kept.features == datasets.load_from_disk(str(tmp_path / "pool" / "data")).features
        trace = {row["id"]: row for row in datasets.load_from_disk(str(work / "trace"))}
        assert list(trace) == [row_id for row_id, _, _ in ROWS]
        return result, list(kept["id"]), trace

    return run


def test_every_dropped_row_has_its_reason_and_the_row_that_it_repeats(carry_out):
    result, kept, trace = carry_out({"exact": True, "near": 0.8})
    assert kept == ["a", "b", "e", "f", "g"]
    assert result.drops == {"exact_copy": 1, "near_copy": 1}
    told = {row_id: (row["drop_reason"], row["repeats"]) for row_id, row in trace.items() if row["drop_reason"]}
    assert told == {"d": ("exact_copy", "a"), "c": ("near_copy", "b")}
    # 41 words have 37 sequences, of which the last two differ.
    assert trace["c"]["similarity"] == pytest.approx(35 / 39) and trace["d"]["similarity"] == 1.0
    assert result.metrics["examples"] == {
        "near_copy": ["c repeats b (similarity 0.897)"],
        "exact_copy": ["d repeats a (similarity 1.000)"],
    }
    assert (result.metrics["rows_in"], result.metrics["rows_out"], result.metrics["mean_turns"]) == (7, 5, 1.0)


def test_a_mix_by_weights_takes_as_many_rows_as_they_allow_of_what_is_left(carry_out):
    result, kept, trace = carry_out({"exact": True, "near": 0.8}, {"weights": {"one": 1, "two": 1}})
    # Left are a, f, g of one and b, e of two.
    sources = {row_id: source for row_id, source, _ in ROWS}
    assert Counter(sources[row_id] for row_id in kept) == {"one": 2, "two": 2} == result.metrics["sources"]
    drawn = [row_id for row_id, is_drawn in zip("afg", drawn_rows(list("afg"), 2, 3), strict=True) if is_drawn]
    assert kept == ["a"] * ("a" in drawn) + ["b", "e"] + [row_id for row_id in drawn if row_id != "a"]
    assert result.drops == {"exact_copy": 1, "near_copy": 1, "not_in_mix": 1}
    (left_out,) = set("afg") - set(drawn)
    assert (trace[left_out]["drop_reason"], trace[left_out]["repeats"]) == ("not_in_mix", None)


def test_a_mix_by_rows_leaves_other_sources_whole(carry_out):
    result, kept, _ = carry_out(mix={"rows": {"one": 1}})
    assert len(kept) == 4 and {"b", "c", "e"} < set(kept)
    assert result.drops == {"not_in_mix": 3}
    assert {tuple(carry_out(mix={"rows": {"one": 1}, "seed": seed})[1]) for seed in range(9)} > {tuple(kept)}


def test_a_mix_that_the_pool_does_not_have_is_refused(carry_out):
    with pytest.raises(UserError, match=r"^pool.mix names 'three', and the rows are of 'one', 'two'\. A source is the"):
        carry_out(mix={"rows": {"three": 1}})
    with pytest.raises(UserError, match="source 'one' has 3 usable rows; state at most 3"):
        carry_out({"exact": True, "near": None}, {"rows": {"one": 4}})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"deduplicate": {"exact": False}}, "leaves nothing out"),
        ({"deduplicate": {"near": 1.5}}, "near"),
        ({"mix": {}}, "state weights: or rows:"),
        ({"mix": {"weights": {"a": 1.0}}}, "one alone would have no effect"),
        ({"mix": {"weights": {"a": 1.0, "b": 1.0}, "rows": {"a": 3}}}, "a is under weights: and rows:"),
    ],
)
def test_sections_without_effect_are_refused(section, said):
    with pytest.raises(ValidationError, match=said):
        Pool.model_validate({"dataset": "x.jsonl", **section})


@pytest.mark.usefixtures("no_gpus")
def test_what_reads_the_pool_reads_the_cleaned_one_and_other_recipes_keep_their_keys(tmp_path):
    plain = graph(tmp_path, recipe())
    nodes = graph(tmp_path, recipe(pool__deduplicate={"near": 0.8}, pool__mix={"rows": {"quickstart": 9}}))
    assert nodes["pool"].key == plain["pool"].key and "clean_pool" not in plain
    node = nodes["clean_pool"]
    assert node.hashed == {
        "deduplicate": {"exact": True, "near": 0.8},
        "mix": {"weights": {}, "rows": {"quickstart": 9}, "seed": 7},
    }
    readers = {label for label, of in nodes.items() if of.parents.get("pool") is node}
    assert readers == {label for label, of in plain.items() if of.parents.get("pool") is plain["pool"]} != set()
    assert node.parents["pool"] is nodes["pool"]


@pytest.mark.usefixtures("no_gpus")
def test_validate_counts_the_cleaned_pool(tmp_path):
    rows = [{"id": row_id, "instruction": asked, "output": "Yes"} for row_id, _, asked in ROWS]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pool = {"dataset": str(tmp_path / "own.jsonl"), "deduplicate": {"near": 0.8}}
    told = data_lines(plan(tmp_path, recipe(pool=pool, select__budget=6)))
    place = told.index("clean_pool: 5 of 7 rows are left")
    assert told[place + 1 : place + 5] == [
        "  exact_copy: 1",
        "    d repeats a (similarity 1.000)",
        "  near_copy: 1",
        "    c repeats b (similarity 0.897)",
    ]
    assert "select: the budget is 6 rows, and the pool has only 5 usable ones, so that fewer are selected" in told

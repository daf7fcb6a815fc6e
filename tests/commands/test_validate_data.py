import json

import pytest
from tiny_recipe import data_lines, no_gpus, plan, recipe  # noqa: F401

from deita_train.commands.validation import grouped
from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("no_gpus")


def lines(folder, **changes):
    return data_lines(plan(folder, recipe(**changes)))


def with_pairs(folder, rows, **settings):
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"preferences": {"dataset": str(folder / "pairs.jsonl"), **settings}, "global_batch_size": 8}


def test_every_data_source_is_read(tmp_path):
    section = {"preferences": {"builtin": "quickstart_preferences", "rows": 20}, "global_batch_size": 8}
    heldout = {"builtin": "quickstart_heldout_preferences", "rows": 12}
    told = lines(tmp_path, dpo=section, evaluate__preferences=heldout)
    starts = [
        "pretraining_data: 50 rows read, 50 usable",
        "pool: 60 rows read, 60 usable",
        "train_scorer.complexity data: 40 labelled rows",
        "train_scorer.complexity heldout: 20 labelled rows",
        "train_scorer.quality data: 40 labelled rows",
        "train_scorer.quality heldout: 20 labelled rows",
        "dpo_data: 20 rows read, 20 pairs kept",
        "heldout_data: 16 rows read, 16 usable",
        "heldout_pairs: 12 rows read, 12 pairs kept",
    ]
    assert [line[: len(start)] for line, start in zip(told, starts, strict=True)] == starts


def test_pairs_with_their_lengths_and_what_is_dropped(tmp_path):
    good = {"prompt": "q", "chosen": "yes, it is", "rejected": "no"}
    section = with_pairs(tmp_path, [good, good, good, {**good, "rejected": good["chosen"]}], sample=2)
    told = lines(tmp_path, dpo=section)
    place = next(number for number, line in enumerate(told) if line.startswith("dpo_data"))
    assert told[place : place + 4] == [
        "dpo_data: 4 rows read, 2 pairs kept; 10 characters per chosen answer, 2 per rejected one; chosen is the longer"
        " one in 100%",
        "  answers_equal: 1",
        f"    {tmp_path}/pairs.jsonl:4: both are 'yes, it is'",
        "  not_sampled: 1",
    ]


def test_what_rows_hold_beside_the_conversation_is_told_once(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "score": 1}]
    emptied = [{"role": "system", "content": ""}, *turns]
    own = [{"role": "system", "content": "s"}, *turns]
    rows = [
        {"messages": emptied, "rating": 5, "meta": {"a": 1}, "embedding": [0.5]},
        {"messages": own, "rating": "n/a", "system": "t"},
        {"messages": turns, "rating": None},
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = lines(tmp_path, pool={"dataset": str(tmp_path / "pool.jsonl")}, select__budget=3)
    place = told.index("pool: 3 rows read, 3 usable")
    where = f"{tmp_path}/pool.jsonl"
    assert told[place + 1 : place + 7] == [
        "  note: Columns of the source that were left out: embedding.",
        f"  note: Column 'meta' is kept as JSON: lists or objects (first at {where}:1).",
        f"  note: Column 'rating' is kept as JSON: values of several types: int at {where}:1, str at {where}:2.",
        "  note: Column 'system' stays a column in 1 row: the conversation has a system message of its own, or the "
        "column does not hold text.",
        "  note: 3 messages with a field 'score', which is kept, and which only a chat template of your own may read.",
        "  note: 1 system message without text, left out of the conversation.",
    ]
    assert sum(line.startswith("  note") for line in told) == 6


def test_pairs_have_notes_too(tmp_path):
    good = {"prompt": "q", "chosen": [{"role": "assistant", "content": "a", "score": 1}], "rejected": "b"}
    told = lines(tmp_path, dpo=with_pairs(tmp_path, [good]))
    place = next(number for number, line in enumerate(told) if line.startswith("dpo_data"))
    assert told[place + 1].startswith("  note: 1 message with a field 'score'")


def test_pairs_that_would_stop_the_run(tmp_path):
    good = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    with pytest.raises(UserError, match="3 pairs are asked for, and pairs has 1 usable"):
        lines(tmp_path, dpo=with_pairs(tmp_path, [good], sample=3))


def test_a_budget_beyond_the_pool_is_told_before_the_run(tmp_path):
    def told(**changes):
        return [line for line in lines(tmp_path, **changes) if line.startswith("select: ")]

    more = "select: the budget is {} rows, and the pool has only 60 usable ones"
    assert told() == told(select__budget=60) == told(select__budget={"share": 1.0}) == []
    assert told(select__budget=61) == [f"{more.format(61)}, so that fewer are selected"]
    with pytest.raises(UserError) as caught:
        lines(tmp_path, select__budget=121)
    ways = "Add rows to the pool, lower select.budget, or state select.allow_fewer: true."
    assert str(caught.value) == f"{more.format(121)}. {ways}"
    assert told(select__budget=121, select__allow_fewer=True) == [f"{more.format(121)}, so that fewer are selected"]


def test_a_batch_of_more_rows_than_there_are_is_told(tmp_path):
    told = lines(tmp_path, select__budget=10, sft__global_batch_size=16)
    assert "sft: global_batch_size 16 is more than the 10 rows to train on; an epoch is one step" in told
    assert not any("global_batch_size" in line for line in lines(tmp_path, select__budget=16))


def test_one_problem_of_several_sections_is_told_once():
    problem = "{0}.model: no good. State {0}.model."
    found = [("embedding", problem.format("embedding")), ("sft", problem.format("sft")), ("pool", "pool: empty")]
    assert grouped(found) == [f"{problem.format('embedding')} The same holds for sft.", "pool: empty"]
    assert grouped([found[1], found[1]]) == [problem.format("sft")]

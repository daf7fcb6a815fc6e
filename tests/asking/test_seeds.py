"""What may be a seed, and which seeds are held out."""

import json

import pytest
from tiny_recipe import no_gpus, plan, recipe  # noqa: F401

from deita_train.commands.validation import validate_data
from deita_train.errors import UserError
from deita_train.stages.asking.evolve import Seeds
from deita_train.stages.asking.rank import heldout_seeds
from deita_train.stages.intake.pool import read_rows

pytestmark = pytest.mark.usefixtures("no_gpus")
ROWS = {
    "messages": [
        {"messages": [{"role": "user", "content": "One?"}]},
        {"messages": [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Three?"},
                {"role": "assistant", "content": "3"},
                {"role": "user", "content": "Four?"},
            ]
        },
    ],
    "instruction": [{"instruction": "One?"}, {"instruction": "Two?"}, {"instruction": "Three?"}],
    "alpaca": [
        {"instruction": "One?", "input": "", "output": " "},
        {"instruction": "Two?", "input": "", "output": "2"},
        {"instruction": "Three?", "input": "", "output": None},
    ],
    "prompt_completion": [
        {"prompt": "One?", "completion": None},
        {"prompt": "Two?", "completion": "2"},
        {"prompt": "Three?"},
    ],
}
ANSWERS = {"messages": [None, "2", "3"], "instruction": [None] * 3}


def planned(folder, rows, *dimensions):
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"id": f"s{n}", **row}) for n, row in enumerate(rows)))
    return plan(
        folder,
        {
            "name": "labels",
            "llm": {"judge": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}},
            "evolve": {
                "seeds": {"dataset": str(folder / "rows.jsonl")},
                "llm": "judge",
                **{dimension: {} for dimension in dimensions},
            },
        },
    )


@pytest.mark.parametrize("form", ROWS)
def test_an_instruction_alone_is_a_seed_of_complexity(tmp_path, form):
    made = planned(tmp_path, ROWS[form], "complexity")
    seeds = made.cells[0].nodes["seeds"]
    table, _ = read_rows(seeds.identity, seeds.runtime)
    found = Seeds(table, "complexity")
    assert [(seed.id, seed.instruction) for seed in found] == [("s0", "One?"), ("s1", "Two?"), ("s2", "Three?")]
    answers = ANSWERS.get(form, [None, "2", None])
    assert [seed.response for seed in found] == answers
    assert [seed.response for seed in Seeds(table, "quality")] == [answer for answer in answers if answer]
    checked = validate_data(made)
    assert checked.problems == [] and "evolve.complexity: 15 calls to llm.judge for 3 seeds" in checked.lines[1]


def test_quality_needs_answers(tmp_path):
    (problem, *_) = validate_data(planned(tmp_path, ROWS["instruction"], "quality")).problems
    assert problem.startswith("evolve.quality: there is nothing to ask the chat model about")


def test_a_pool_still_needs_them(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS["messages"][0]))
    made = plan(tmp_path, recipe("sft", "evaluate", pool={"dataset": str(tmp_path / "rows.jsonl")}))
    pool = made.cells[0].nodes["pool"]
    with pytest.raises(UserError, match="no_assistant_turn"):
        read_rows(pool.identity, pool.runtime)


@pytest.mark.parametrize(
    ("seeds", "share", "number"),
    [(100, 0.05, 5), (24, 0.05, 1), (2, 0.05, 1), (1, 0.05, 0), (10, 0.0, 0), (4, 0.99, 3)],
)
def test_the_stated_share_of_the_seeds_is_held_out_and_one_of_several_at_least(seeds, share, number):
    ids = [f"s{place}" for place in range(seeds)]
    held = heldout_seeds(ids, {"heldout_share": share, "seed": 7})
    assert len(held) == number and held <= set(ids)
    assert heldout_seeds(ids[::-1], {"heldout_share": share, "seed": 7}) == held

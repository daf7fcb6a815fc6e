"""Published figures in a recipe: what is refused, and that no key knows of them."""

import json

import pytest
from tiny_recipe import no_gpus, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.plan import make_plan, run_record
from deita_train.recipe.loading import load_recipe
from deita_train.store.run_record import RecordedFigure, RunRecord

FIGURES = {"mt_bench": 7.22, "alpaca_eval": 80.78}
SWEEP = {"select.method": ["deita", "random"], "select.budget": [5, 10], "sft.seed": [1, 2]}


def written(folder, sweep=None, tasks=None, **entry):
    data = recipe(sweep=sweep) if sweep else recipe()
    data["report"] = {"published": [{"source": "A paper", "model": "sft", "figures": FIGURES, **entry}]}
    if tasks:
        data["evaluate"]["lm_eval"] = {"tasks": tasks}
    (folder / "r.yaml").write_text(json.dumps(data))
    return folder / "r.yaml"


def refusal(folder, **entry):
    with pytest.raises(UserError) as caught:
        load_recipe(written(folder, **entry))
    return str(caught.value)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (
            {"mt_bnch": 7},
            "report.published.0.figures: mt_bnch is no measure (did you mean mt_bench?); allowed: mt_bench",
        ),
        ({"lm_eval.arc_chalenge": 7}, "did you mean lm_eval.arc_challenge?"),
        ({"lm_eval.": 7}, "lm_eval. is no measure"),
        ({"heldout": 7}, "alpaca_eval.length_controlled, lm_eval.mean, lm_eval.arc_challenge, lm_eval.hellaswag, "),
        ({"mt_bench": 73.91}, "figures.mt_bench: 73.91 is not from 1 to 10"),
        ({"alpaca_eval": 101}, "figures.alpaca_eval: 101 is not from 0 to 100"),
        ({"alpaca_eval": True}, "number"),
        ({}, "items"),
    ],
)
def test_unknown_measures_and_values_off_the_scale_are_refused(tmp_path, figures, message):
    assert message in refusal(tmp_path, figures=figures)


def test_a_figure_without_a_source_is_refused(tmp_path):
    assert "report.published.0.source" in refusal(tmp_path, source=" ")


def test_tasks_that_the_recipe_measures_are_measures(tmp_path):
    assert "allowed once evaluate.lm_eval.tasks names them" in refusal(tmp_path, figures={"lm_eval.gsm8k": 50.5})
    load_recipe(written(tmp_path, tasks=["gsm8k"], figures={"lm_eval.gsm8k": 50.5}))


@pytest.mark.parametrize(
    ("cell", "sweep", "message"),
    [
        ({"select.method": "random"}, None, "report.published.0.cell: the recipe has no sweep:"),
        ({"select.method": "ifd"}, SWEEP, "the sweep has no cell with select.method: ifd; it has select.method: "),
        ({"select.method": "random"}, SWEEP, "several cells have select.method: random: select.method: random, "
         "select.budget: 5; select.method: random, select.budget: 10. State more"),
        ({"select.method": "random", "sft.seed": 1}, SWEEP, "sft.seed: a figure stands beside the mean over seeds"),
    ],
)  # fmt: skip
def test_a_cell_is_named_by_settings_that_only_its_seeds_share(tmp_path, cell, sweep, message):
    assert message in refusal(tmp_path, cell=cell, sweep=sweep)


@pytest.mark.usefixtures("no_gpus")
def test_the_run_records_them_and_no_key_knows_of_them(tmp_path):
    cell = {"select.method": "random", "select.budget": 10}
    path = written(tmp_path, sweep=SWEEP, cell=cell)
    made, without = (make_plan(path, sets, tmp_path / "runs") for sets in ([], ["report=null"]))
    assert [node.key for node in made.nodes] == [node.key for node in without.nodes]
    run_record(made).write(tmp_path)
    expected = tuple(RecordedFigure(name, "sft", value, "A paper", cell) for name, value in FIGURES.items())
    assert RunRecord.read(tmp_path).published == expected
    run_record(without).write(tmp_path)
    assert RunRecord.read(tmp_path).published == ()

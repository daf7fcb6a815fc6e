from dataclasses import replace

from fake_run import edit_json, keep_stages

from deita_train.report.results.groups import groups_of
from deita_train.report.results.result_measures import heldout_loss
from deita_train.report.results.summary import read_summary


def test_cells_that_differ_in_seeds_form_one_group(run):
    groups = groups_of(read_summary(*run))
    assert [(group.label, len(group.cells), group.base) for group in groups] == [
        ("deita", 3, True), ("random", 3, False),
    ]  # fmt: skip
    # The three deita cells share one selection; the three random ones have their own.
    assert [len(group.artefacts("select")) for group in groups] == [1, 3]
    assert groups[0].estimate("evaluate.sft", heldout_loss).n == 3


def test_the_base_group_comes_first_and_numbers_are_named(run):
    def change(record):
        for place, cell in enumerate(record["cells"]):
            cell["base"] = place == 4
            cell["settings"]["select.budget"] = 1000 * (1 + place % 2)

    edit_json(run[0] / "stages.json", change)
    groups = groups_of(read_summary(*run))
    assert [group.label for group in groups] == [
        "random, budget 1,000", "deita, budget 1,000", "deita, budget 2,000", "random, budget 2,000",
    ]  # fmt: skip
    assert groups[0].base and not any(group.base for group in groups[1:])


def test_a_run_without_a_sweep_is_named_by_its_method(run):
    keep_stages(run[0], "select")
    assert [group.label for group in groups_of(read_summary(*run))] == ["deita"]


def test_the_base_run_is_not_counted_beside_its_twin(run):
    summary = read_summary(*run)
    first, *others = summary.cells
    written = replace(first, settings={}, label="base run")
    doubled = replace(summary, cells=(written, replace(first, base=False), *others))
    groups = groups_of(doubled)
    assert [(group.label, len(group.cells), group.base) for group in groups] == [
        ("deita", 3, True),
        ("random", 3, False),
    ]

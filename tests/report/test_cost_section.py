"""What was planned of a run's cost, beside what was measured."""

import json

from fake_run import edit_json

from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.all_sections import sections_of
from deita_train.store.run_record import COSTS, keep_planned_costs, read_planned_costs


def cost_of(run):
    summary = read_summary(*run)
    return next((of for of in sections_of(summary, groups_of(summary)) if of.title == "Cost"), None)


def test_planned_and_measured_stand_side_by_side(run, undrawn):
    assert cost_of(run) is None  # a run of an earlier version
    sft = read_summary(*run).base_cell.stages["sft"]

    def trained(metrics):
        metrics |= {"train_tokens": 1000, "train_rows": 10, "tokens_per_second_per_device": 50.0, "memory_gib": 2.0}

    edit_json(sft.folder / "metrics.json", trained)

    def as_trained(manifest):
        manifest["config"] |= {"trainer": {"num_train_epochs": 4}}
        manifest |= {"world_size": 2, "wall_seconds": 120.0}

    edit_json(sft.folder / "manifest.json", as_trained)
    planned = {
        "tokens": 9000,
        "at_most": True,
        "sampled": False,
        "operations": 1.0,
        "gpu_hours": None,
        "memory": 1_500_000_000,
    }
    (run[0] / COSTS).write_text(json.dumps({sft.id: planned}))
    (table,) = cost_of(run).tables
    assert table.titles[0] == "stage"
    # Four epochs of 1,000 tokens; two ranks of 50 a second; two GiB are 2.15 GB.
    assert table.rows == (("sft", "<9,000", "4,000", "2 min 00 s", "100", "\N{EN DASH}", "1.50", "2.15"),)


def test_what_was_planned_first_stays(tmp_path):
    assert read_planned_costs(tmp_path) == {}
    keep_planned_costs(tmp_path, {"a": {"tokens": 1}})
    keep_planned_costs(tmp_path, {"a": {"tokens": 2}, "b": {"tokens": 3}})
    assert read_planned_costs(tmp_path) == {"a": {"tokens": 1}, "b": {"tokens": 3}}

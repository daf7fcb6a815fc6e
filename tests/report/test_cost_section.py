"""What was planned of a run's cost, beside what was measured."""

import json

from fake_run import edit_json

from deita_train.number_text import ABSENT
from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.all_sections import sections_of
from deita_train.store.run_record import COSTS, keep_planned_costs, read_planned_costs


def cost_of(run):
    summary = read_summary(*run)
    return next((of for of in sections_of(summary, groups_of(summary)) if of.title == "Cost"), None)


def costs(**changes):
    """What a run keeps of a stage: 9,000 tokens of 2 MFLOP each, at most."""
    kept = {"tokens": 9000, "at_most": True, "sampled": False, "operations": 1.8e10, "gpu_hours": None}
    return kept | {"memory": 1_500_000_000} | changes


def make_trained(artefact, seconds=120.0, device="cpu", **metrics):
    """A training of four epochs of 1,000 tokens on two ranks of 50 a second, in two GiB each."""

    def trained(record):
        record |= {"train_tokens": 1000, "train_rows": 10, "tokens_per_second_per_device": 50.0, "memory_gib": 2.0}
        record |= metrics

    def as_trained(manifest):
        manifest["config"] |= {"trainer": {"num_train_epochs": 4}}
        manifest |= {"world_size": 2, "wall_seconds": seconds, "device": device}

    edit_json(artefact.folder / "metrics.json", trained)
    edit_json(artefact.folder / "manifest.json", as_trained)


def test_planned_and_measured_stand_side_by_side(run, undrawn):
    assert cost_of(run) is None  # a run of an earlier version
    stages = read_summary(*run).base_cell.stages
    sft, embed = stages["sft"], stages["embed"]
    make_trained(sft)
    planned = {sft.id: costs(), embed.id: costs(tokens=500_000, at_most=False, sampled=True, operations=None)}
    (run[0] / COSTS).write_text(json.dumps(planned))
    section = cost_of(run)
    work, time, memory = section.tables
    assert [table.title for table in section.tables] == ["Work", "Time", "Memory"]
    assert work.titles == (
        "stage", "tokens planned", "tokens measured", "measured / planned", "GFLOP planned", "GFLOP measured",
    )  # fmt: skip
    # Four epochs of 1,000 tokens of 2 MFLOP; 654,321 / 500,000 = 1.309; 658,321 / 509,000 = 1.293.
    assert work.rows == (
        ("embed", "~500 k", "654 k", "1.31", ABSENT, ABSENT),
        ("sft", "<9,000", "4,000", "0.44", "18.0", "8.00"),
        ("total", "<509 k", "658 k", "1.29", "18.0", "8.00"),
    )
    assert "Together 509 k tokens were planned and 658 k computed, 1.29 times as many." in section.text
    # No GPU, so no hours; two ranks of 50 a second.
    assert time.titles == ("stage", "wall time", "tokens per second")
    assert time.rows == (("embed", "44 s", ABSENT), ("sft", "2 min 00 s", "100"), ("total", "2 min 44 s", ""))
    assert "Hours are planned for GPUs only" in time.note
    # Two GiB are 2.15 GB; the pass over data measured none.
    assert memory.rows == (("sft", "1.50", "2.15", "1.43"),)


def test_hours_of_gpus_are_wall_time_times_gpus(run, undrawn):
    stages = read_summary(*run).base_cell.stages
    sft, embed = stages["sft"], stages["embed"]
    make_trained(sft, seconds=1800.0, device="cuda", mfu=0.4)
    edit_json(embed.folder / "manifest.json", lambda manifest: manifest.update(device="cuda", wall_seconds=360.0))
    planned = {sft.id: costs(gpu_hours=0.8), embed.id: costs()}
    (run[0] / COSTS).write_text(json.dumps(planned))
    section = cost_of(run)
    time = section.tables[1]
    assert time.titles == (
        "stage", "wall time", "GPU hours planned", "GPU hours measured", "measured / planned", "tokens per second",
        "MFU",
    )  # fmt: skip
    # Half an hour on two GPUs; the pass has no planned hours and is not in the total.
    assert time.rows == (
        ("embed", "6 min 00 s", ABSENT, "0.100", ABSENT, ABSENT, ABSENT),
        ("sft", "30 min 00 s", "0.800", "1.00", "1.25", "100", "40.0%"),
        ("total", "36 min 00 s", "0.800", "1.00", "1.25", "", ""),
    )
    assert "Totals of hours are over the stages that have both" in time.note
    assert "0.800 GPU hours were planned and 1.00 taken, 1.25 times as many." in section.text


def test_the_runs_of_a_stage_are_one_row(run, undrawn):
    cells = read_summary(*run).cells[:3]
    made = [cell.stages["sft"] for cell in cells]
    for place, item in enumerate(made):
        make_trained(item, seconds=10.0 * (place + 1), memory_gib=1.0 + place)
    kept = {item.id: costs(operations=None if place else 1e10) for place, item in enumerate(made)}
    (run[0] / COSTS).write_text(json.dumps(kept))
    work, time, memory = cost_of(run).tables
    # One of three has no operations: a sum of the others would look like that of all.
    assert work.rows[0] == ("sft (3 runs)", "<27.0 k", "12.0 k", "0.44", ABSENT, ABSENT)
    assert time.rows[0] == ("sft (3 runs)", "1 min 00 s", "100")
    assert memory.rows == (("sft (3 runs)", "1.50", "3.22", "2.15"),)


def test_the_last_row_of_memory_is_the_most(run, undrawn):
    stages = read_summary(*run).base_cell.stages
    for label, gib in (("train_scorer.quality", 4.0), ("sft", 2.0)):
        make_trained(stages[label], memory_gib=gib)
    planned = {stages["train_scorer.quality"].id: costs(memory=3e9), stages["sft"].id: costs(memory=5e9)}
    (run[0] / COSTS).write_text(json.dumps(planned))
    assert cost_of(run).tables[2].rows[-1] == ("most", "5.00", "4.29", "0.86")


def test_a_stage_that_was_planned_to_read_nothing_is_left_out(run, undrawn):
    sft = read_summary(*run).base_cell.stages["sft"]
    make_trained(sft)
    (run[0] / COSTS).write_text(json.dumps({sft.id: costs(tokens=0)}))
    assert cost_of(run) is None


def test_what_was_planned_first_stays(tmp_path):
    assert read_planned_costs(tmp_path) == {}
    keep_planned_costs(tmp_path, {"a": {"tokens": 1}})
    keep_planned_costs(tmp_path, {"a": {"tokens": 2}, "b": {"tokens": 3}})
    assert read_planned_costs(tmp_path) == {"a": {"tokens": 1}, "b": {"tokens": 3}}

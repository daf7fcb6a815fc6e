import json
from dataclasses import asdict

import pytest
from tiny_recipe import LABELS, a_manifest, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.plan import planned_stages, run_record
from deita_train.store.attempt import AttemptError
from deita_train.store.run_record import RunRecord

pytestmark = pytest.mark.usefixtures("no_gpus")
SWEEP = {"select.method": ["random"], "sft.seed": [1, 2], "until": "sft"}


def publish(made, *labels):
    """Leave what a published artefact is recognised by."""
    for node in made.nodes:
        if not labels or node.label in labels:
            folder = made.store.path(node.id)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "manifest.json").write_text(json.dumps(asdict(a_manifest(node))))


def carry_out(made):
    """What a complete run leaves of its plan."""
    publish(made)
    made.run_dir.mkdir(parents=True, exist_ok=True)
    run_record(made).write(made.run_dir)


def statuses(made):
    return {stage.node.label: stage.status for stage in planned_stages(made)}


def reasons(made):
    return {stage.node.label: stage.reason for stage in planned_stages(made) if stage.status == "to run"}


def test_before_the_first_run_everything_is_to_be_made(tmp_path):
    made = plan(tmp_path, recipe())
    assert statuses(made) == dict.fromkeys(LABELS, "to run")
    assert set(reasons(made).values()) == {"not made yet"}


def test_planning_writes_the_memory_of_hashes_only(tmp_path):
    plan(tmp_path, recipe())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"recipe.yaml", "runs/store/content_hashes.json"}


def test_the_three_statuses(tmp_path):
    made = plan(tmp_path, recipe())
    publish(made, "pool", "pretraining_data")
    made.store.work_path(made.cells[0].nodes["base"].id).mkdir(parents=True)
    stages = {stage.node.label: (stage.status, stage.reason) for stage in planned_stages(made)}
    assert stages["pool"] == stages["pretraining_data"] == ("done", "published")
    assert stages["base"] == ("continues", "an earlier attempt was interrupted")
    assert stages["embed"] == ("to run", "not made yet")


def test_a_stage_that_failed_is_not_called_interrupted(tmp_path):
    made = plan(tmp_path, recipe())
    work = made.store.work_path(made.cells[0].nodes["pool"].id)
    work.mkdir(parents=True)
    AttemptError(0, "no", user_error=False).write(work)
    (stage,) = [stage for stage in planned_stages(made) if stage.node.label == "pool"]
    assert (stage.status, stage.reason) == ("continues", "an earlier attempt failed")


def test_a_published_artefact_is_done_whatever_its_work_folder_says(tmp_path):
    made = plan(tmp_path, recipe())
    publish(made, "pool")
    made.store.work_path(made.cells[0].nodes["pool"].id).mkdir(parents=True)
    assert statuses(made)["pool"] == "done"


def test_a_folder_without_a_manifest_is_not_done(tmp_path):
    made = plan(tmp_path, recipe())
    made.store.path(made.cells[0].nodes["pool"].id).mkdir(parents=True)
    assert statuses(made)["pool"] == "to run"


def test_after_a_run_everything_is_done_under_another_name_too(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    assert set(statuses(plan(tmp_path, recipe())).values()) == {"done"}
    assert set(statuses(plan(tmp_path, recipe(name="other", description="x"))).values()) == {"done"}


def test_the_reason_names_the_changed_field_and_the_changed_parent(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    made = plan(tmp_path, recipe(select__budget=12))
    assert reasons(made) == {
        "embed": "walk.budget: 10 -> 12",
        "select": "budget: 10 -> 12",
        "sft": "select changed",
        "evaluate.sft": "sft changed",
    }
    assert list(statuses(made).values()).count("done") == len(LABELS) - 4


def test_a_selection_made_of_all_rows_is_that_of_the_walk(tmp_path):
    whole = plan(tmp_path, recipe(embedding__rows="all"))
    carry_out(whole)
    made = plan(tmp_path, recipe())
    assert list(reasons(made)) == ["embed"] and reasons(made)["embed"].startswith("walk: nothing -> {")
    publish(made, "embed")
    assert set(statuses(made).values()) == set(statuses(whole).values()) == {"done"}


def test_a_field_that_was_not_there_and_a_nested_one(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    changed = recipe(sft__trainer__max_length=512, sft__trainer__learning_rate=0.002)
    assert reasons(plan(tmp_path, changed))["sft"] == (
        "cut_at_context: True -> False; trainer.learning_rate: 0.001 -> 0.002; trainer.max_length: 2048 -> 512"
    )


def test_many_changes_are_cut_short(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    changes = {
        f"base__architecture__{name}": 320 for name in ("hidden_size", "num_layers", "vocab_size", "context_length")
    }
    assert reasons(plan(tmp_path, recipe(**changes)))["base"] == (
        "architecture.context_length: 1024 -> 320; architecture.hidden_size: 64 -> 320; "
        "architecture.num_layers: 2 -> 320; "
        "and 1 more"
    )


def test_a_long_value_is_cut_short(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    template = tmp_path / "t.jinja"
    template.write_text("x" * 100 + "{% generation %}{{ eos_token }}{% endgeneration %}")
    reason = reasons(plan(tmp_path, recipe(sft__chat_template=str(template))))["sft"]
    assert reason.startswith("chat_template: ") and reason.endswith(f" -> {'x' * 37}...")


def test_two_changed_parents_are_both_named(tmp_path):
    carry_out(plan(tmp_path, recipe()))
    made = plan(tmp_path, recipe(pool__rows=61))
    assert reasons(made)["score.quality"] == "pool changed"
    assert set(reasons(made)["select"].removesuffix(" changed").split(", ")) == {
        "pool",
        "score.complexity",
        "score.quality",
        "embed",
    }


def test_an_artefact_that_was_removed_is_made_again(tmp_path):
    made = plan(tmp_path, recipe())
    carry_out(made)
    (made.store.path(made.cells[0].nodes["embed"].id) / "manifest.json").unlink()
    assert reasons(made) == {"embed": "not made yet"}


def test_until(tmp_path):
    made = plan(tmp_path, recipe(), until="embed")
    assert list(statuses(made)) == LABELS[:8]


def test_until_one_stage_of_a_kind(tmp_path):
    made = plan(tmp_path, recipe(sweep={"select.threshold": [0.8]}), until="score.quality")
    stages = ["pretraining_data", "base", "pool", "train_scorer.quality", "score.quality"]
    assert [list(cell.nodes) for cell in made.cells] == [stages] * 2


def test_until_a_stage_that_a_cell_does_not_have_stops_the_cell_too(tmp_path):
    """Random selection reads no scores: its cell must not go on to its training when the run shall end at scores."""
    made = plan(tmp_path, recipe(sweep=SWEEP), until="score.quality")
    assert [list(cell.nodes) for cell in made.cells[1:]] == [["pretraining_data", "base", "pool"]] * 2


def test_until_a_later_stage_leaves_a_cell_what_only_it_reads(tmp_path):
    data = recipe(select__method="random", sweep={"select.method": ["deita"], "until": "sft"})
    _, cell = plan(tmp_path, data, until="evaluate").cells
    assert list(cell.nodes) == LABELS[:10]


def test_until_an_unknown_stage(tmp_path):
    with pytest.raises(
        UserError, match=r"^--until sftt: the recipe has no such stage; it has pool, pretraining_data, base, "
    ):
        plan(tmp_path, recipe(), until="sftt")


def test_the_cells_of_a_sweep_end_where_it_says(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    base, *others = made.cells
    assert list(base.nodes) == LABELS
    assert [cell.label for cell in others] == [f"random, seed {seed}" for seed in (1, 2)]
    for cell in others:
        assert {"select", "sft"} <= set(cell.nodes)
        assert not {"evaluate.sft", "evaluate.base", "heldout_data"} & set(cell.nodes)
    assert len(made.nodes) == len(LABELS) + 1 + 2


def test_until_beyond_the_end_of_a_sweeps_cells_leaves_them_as_they_are(tmp_path):
    whole = plan(tmp_path, recipe(sweep=SWEEP))
    cut = plan(tmp_path, recipe(sweep=SWEEP), until="evaluate")
    assert [list(cell.nodes) for cell in cut.cells] == [list(cell.nodes) for cell in whole.cells]
    early = plan(tmp_path, recipe(sweep=SWEEP), until="pool")
    assert all({node.kind for node in cell.nodes.values()} == {"pool"} for cell in early.cells)


def test_a_sweep_that_ends_at_an_unknown_stage(tmp_path):
    with pytest.raises(UserError, match="until dpo: the recipe has no such stage"):
        plan(tmp_path, recipe(sweep={"sft.seed": [1], "until": "dpo"}))


def test_the_node_of_an_id(tmp_path):
    made = plan(tmp_path, recipe())
    node = made.cells[0].nodes["embed"]
    assert made.node(node.id) is node
    with pytest.raises(UserError, match=r"has no stage embed-000: the recipe or its data changed since\."):
        made.node("embed-000")


def test_the_arguments_lead_to_the_same_plan(tmp_path):
    made = plan(tmp_path, recipe(), "select.budget=11", "sft.trainer={learning_rate: 0.5}")
    path, *rest = made.arguments()
    assert path == str(tmp_path / "recipe.yaml")
    assert rest == [
        "--set",
        "select.budget=11",
        "--set",
        "sft.trainer={learning_rate: 0.5}",
        "--runs",
        str(tmp_path / "runs"),
    ]


def test_the_record_is_json_and_names_every_artefact(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    made.run_dir.mkdir(parents=True)
    run_record(made).write(made.run_dir)
    kept = json.loads((made.run_dir / "stages.json").read_text())
    assert RunRecord.read(made.run_dir) == run_record(made)
    assert set(kept["nodes"]) == {node.id for node in made.nodes}
    assert [cell["base"] for cell in kept["cells"]] == [True, False, False]
    assert kept["cells"][1]["settings"] == {"select.method": "random", "sft.seed": 1}
    sft = kept["nodes"][kept["cells"][0]["stages"]["sft"]]
    assert sft["parents"] == {
        name: made.cells[0].nodes[label].id for name, label in (("data", "select"), ("model", "base"))
    }
    assert {artefact for cell in kept["cells"] for artefact in cell["stages"].values()} == set(kept["nodes"])


def test_what_was_made_from_other_content_is_made_again(tmp_path):
    made = plan(tmp_path, recipe())
    carry_out(made)
    pool = made.cells[0].nodes["pool"]
    anew = json.dumps(asdict(a_manifest(pool, content_digest="made anew on another device")))
    (made.store.path(pool.id) / "manifest.json").write_text(anew)
    statuses = {stage.node.label: (stage.status, stage.reason) for stage in planned_stages(made)}
    assert statuses["pool"] == ("done", "published")
    assert statuses["embed"] == ("to run", "what it reads was rebuilt")
    assert statuses["base"] == ("done", "published")


def sweep_reasons(made):
    """Cell and stage -> why it must be made, for what is not shared with the base run."""
    stages = [stage for stage in planned_stages(made) if stage.status == "to run"]
    return {
        (made.owners(stage.node)[0].label, stage.node.label): stage.reason
        for stage in stages
        if not made.owners(stage.node)[0].is_base
    }


def test_a_cell_is_compared_with_its_own_former_self(tmp_path):
    sweep = {"select.method": ["random", "longest_response"], "until": "sft"}
    carry_out(plan(tmp_path, recipe(sweep=sweep)))
    assert sweep_reasons(plan(tmp_path, recipe(sweep=sweep, select__budget=12))) == {
        ("random", "select"): "budget: 10 -> 12",
        ("random", "sft"): "select changed",
        ("longest_response", "select"): "budget: 10 -> 12",
        ("longest_response", "sft"): "select changed",
    }


def test_a_cell_that_the_last_run_did_not_have_is_compared_with_none(tmp_path):
    carry_out(plan(tmp_path, recipe(sweep={"select.method": ["random"], "until": "select"})))
    made = plan(tmp_path, recipe(sweep={"select.method": ["random", "longest_response"], "until": "sft"}))
    assert sweep_reasons(made) == {
        ("random", "sft"): "not made yet",
        ("longest_response", "select"): "not made yet",
        ("longest_response", "sft"): "not made yet",
    }


def test_what_the_recipe_as_written_shares_is_compared_with_its_own_former_self(tmp_path):
    sweep = {"sft.seed": [1, 7], "until": "sft"}  # the seed of the base run is 7
    carry_out(plan(tmp_path, recipe(sweep=sweep)))
    made = plan(tmp_path, recipe(sweep=sweep, sft__trainer__max_length=64))
    assert reasons(made)["evaluate.sft"] == "sft changed"
    assert [stage.reason for stage in planned_stages(made) if stage.node.label == "sft"] == [
        "cut_at_context: True -> False; trainer.max_length: 2048 -> 64"
    ] * 2


def test_an_artefact_is_named_by_its_cells(tmp_path):
    sweep = {"select.method": ["deita", "random", "longest_response"], "select.seed,sft.seed": [1, 2], "until": "sft"}
    made = plan(tmp_path, recipe(sweep={**sweep, "whole_pool": True}))
    names = [(node.label, made.cell_name(node)) for node in made.nodes if node.label in ("pool", "select", "sft")]
    assert names == [
        ("pool", ""),
        ("select", ""),
        ("sft", ""),
        ("sft", "deita, seed 1"),
        ("sft", "deita, seed 2"),
        ("select", "random, seed 1"),
        ("sft", "random, seed 1"),
        ("select", "random, seed 2"),
        ("sft", "random, seed 2"),
        ("select", "longest_response, seed 1 and 1 other"),
        ("sft", "longest_response, seed 1"),
        ("sft", "longest_response, seed 2"),
        ("select", "whole pool, seed 1 and 1 other"),
        ("sft", "whole pool, seed 1"),
        ("sft", "whole pool, seed 2"),
    ]

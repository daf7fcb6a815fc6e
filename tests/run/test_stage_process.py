"""What a stage's process keeps of an earlier attempt."""

import json
import os
import threading
from types import SimpleNamespace

import pytest
from tiny_recipe import a_manifest, no_gpus, plan, recipe  # noqa: F401

from deita_train.plan.plan import run_record
from deita_train.run.child import stage_process
from deita_train.run.child.preparation import prepare, wait_for_preparation
from deita_train.run.recording import record_stage
from deita_train.stages.context import Progress, StageContext
from deita_train.store.locks import PARENT_VARIABLE
from deita_train.store.run_record import RunRecord


class Prepared:
    """A stage that counts how often it prepares, and chooses the size of its batches anew each time."""

    def __init__(self):
        self.times = 0

    def prepare(self, context):
        self.times += 1
        (context.prepared_dir / "batches.json").write_text(f"plan {self.times}")


def attempt(module, folder, max_batch_tokens):
    """The plan that an attempt works by, and whether the earlier attempts' shards are still there."""
    settings = {"max_batch_tokens": max_batch_tokens}
    context = StageContext("embed", "embed", {}, settings, {}, folder, 0, 1, Progress(None))
    prepare(module, context)
    kept = (folder / "shards" / "shard").exists()
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "shards" / "shard").touch()
    return (context.prepared_dir / "batches.json").read_text(), kept


@pytest.mark.parametrize("stated", [None, 99])
def test_the_same_setting_keeps_the_plan_and_the_shards(tmp_path, stated):
    module = Prepared()
    assert attempt(module, tmp_path, stated) == ("plan 1", False)
    assert attempt(module, tmp_path, stated) == ("plan 1", True)
    assert module.times == 1


def test_another_setting_plans_anew_and_drops_the_shards(tmp_path):
    module = Prepared()
    assert attempt(module, tmp_path, None) == ("plan 1", False)
    assert attempt(module, tmp_path, 16_384) == ("plan 2", False)
    assert attempt(module, tmp_path, None) == ("plan 3", False)


def test_rows_that_must_not_be_reused_any_more_plan_anew(tmp_path):
    module, plans = Prepared(), []
    for reuse_rows in (True, True, False):
        settings = {"max_batch_tokens": None, "reuse_rows": reuse_rows}
        context = StageContext("embed", "embed", {}, settings, {}, tmp_path, 0, 1, Progress(None))
        prepare(module, context)
        plans.append((context.prepared_dir / "batches.json").read_text())
    assert plans == ["plan 1", "plan 1", "plan 2"]


def test_a_preparation_that_did_not_end_is_made_again(tmp_path):
    def fail(context):
        (context.prepared_dir / "batches.json").write_text("half a pl")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(SimpleNamespace(prepare=fail), tmp_path, None)
    assert attempt(Prepared(), tmp_path, None) == ("plan 1", False)


@pytest.mark.parametrize(
    ("world", "gpus", "before", "after"),
    [
        ("1", 8, None, "0"),
        ("1", 2, "5,3", "5"),
        ("1", 1, "5", "5"),
        ("1", 0, None, None),
        ("8", 8, None, None),
    ],
)
def test_a_process_that_is_the_only_one_sees_one_gpu(monkeypatch, world, gpus, before, after):
    """transformers would wrap the model for all that it sees, and multiply the batch by their number."""
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setattr(stage_process, "count_gpus", lambda: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before or "")  # and given back after the test
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    stage_process.see_one_gpu()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == after


def test_a_rank_does_not_start_on_what_rank_0_is_about_to_prepare_anew(tmp_path):
    module = Prepared()
    attempt(module, tmp_path, None)
    settings = {"max_batch_tokens": 16_384}
    waiting = StageContext("embed", "embed", {}, settings, {}, tmp_path, 1, 2, Progress(None))
    rank = threading.Thread(target=wait_for_preparation, args=(waiting,), daemon=True)
    rank.start()
    rank.join(0.5)
    assert rank.is_alive()
    attempt(module, tmp_path, 16_384)
    rank.join(5)
    assert not rank.is_alive()


def test_a_parent_made_anew_with_other_content_is_prepared_anew_and_its_checkpoints_go(tmp_path):
    """As by `--fresh` for the parent while a training of it was interrupted."""
    module, parent, work = Prepared(), tmp_path / "parent", tmp_path / "work"
    parent.mkdir()
    (work / "checkpoints").mkdir(parents=True)
    context = StageContext("sft", "sft", {}, {}, {"data": parent}, work, 0, 1, Progress(None))
    told = []
    for digest in ("old", "old", "new"):
        (parent / "manifest.json").write_text(json.dumps({"content_digest": digest}))
        prepare(module, context)
        told.append((module.times, (work / "checkpoints").exists()))
        (work / "checkpoints").mkdir(exist_ok=True)
    assert told == [(1, False), (1, True), (2, False)]


def test_a_stage_started_by_hand_leaves_a_link_to_its_model(tmp_path, no_gpus, monkeypatch):  # noqa: F811
    made = plan(tmp_path, recipe())
    node = made.cells[0].nodes["sft"]

    def publish(plan, node, rank):
        (plan.store.work_path(node.id) / "model").mkdir(parents=True)
        plan.store.publish(a_manifest(node), {})

    monkeypatch.setattr(stage_process, "_run_rank", publish)
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stage_process.run_stage(tmp_path / "recipe.yaml", (), tmp_path / "runs", node.id)
    assert (made.run_dir / "sft").resolve() == (made.store.path(node.id) / "model").resolve()
    # What no record names would be removed by `store gc`.
    assert set(RunRecord.read(made.run_dir).nodes) == {node.id for node in made.nodes}


def test_a_stage_started_by_hand_replaces_only_a_record_that_does_not_know_it(tmp_path, no_gpus):  # noqa: F811
    made = plan(tmp_path, recipe())
    node = made.cells[0].nodes["sft"]
    short = plan(tmp_path, recipe(), until="sft")
    record_stage(short, node)
    record_stage(made, node)
    assert set(RunRecord.read(made.run_dir).nodes) == set(run_record(short).nodes)
    other = next(node for node in made.nodes if node.id not in run_record(short).nodes)
    record_stage(made, other)
    assert set(RunRecord.read(made.run_dir).nodes) == set(run_record(made).nodes)

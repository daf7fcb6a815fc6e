"""A stage in parts: in any order, several at once, one killed, the rest by a run; always the undivided bytes."""

import os
import shutil
import signal
import time
from contextlib import closing
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from part_stages import DIVIDED, digest, do_part, make_read, node_of, write_recipe

from deita_train.errors import UserError
from deita_train.inference.batches import read_plan
from deita_train.plan.division import is_divided, refuse_undivided
from deita_train.plan.plan import make_plan, planned_stages
from deita_train.run.child.stage_process import run_stage
from deita_train.store.locks import BeingMade, hold
from deita_train.store.part_locks import ArtefactLock
from deita_train.store.run_record import RunRecord

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def undivided(recipe, tmp_path_factory):
    """The digests of the stages that no parts made, and a runs folder with what they read."""
    runs = tmp_path_factory.mktemp("undivided")
    make_read(recipe, runs)
    read = tmp_path_factory.mktemp("read")
    shutil.copytree(runs, read, dirs_exist_ok=True)
    for label in DIVIDED:
        run_stage(recipe, [], runs, label)
    return {label: digest(recipe, runs, label) for label in DIVIDED}, read


@pytest.fixture
def runs(undivided, tmp_path):
    """A runs folder with what the divided stages read."""
    shutil.copytree(undivided[1], tmp_path / "runs")
    return tmp_path / "runs"


def is_published(recipe, runs, label):
    store, node = node_of(recipe, runs, label)
    return store.has(node.id)


def shards(recipe, runs, label):
    store, node = node_of(recipe, runs, label)
    return sorted((store.work_path(node.id) / "shards").glob("*.parquet"))


@pytest.mark.parametrize("label", DIVIDED)
def test_parts_in_any_order_make_the_undivided_table(recipe, runs, undivided, label, capsys):
    for part, left in (("2/3", "1/3, 3/3"), ("3/3", "1/3")):
        do_part(recipe, runs, label, part)
        assert not is_published(recipe, runs, label)
        assert node_of(recipe, runs, label)[1].id in RunRecord.read(make_plan(recipe, [], runs).run_dir).nodes
        assert f"part {part} is done; these are left: {left}\n" in capsys.readouterr().out
    (planned,) = (stage for stage in planned_stages(make_plan(recipe, [], runs)) if stage.node.label == label)
    assert (planned.status, planned.reason) == ("continues", "an earlier attempt has 2 of 3 parts done")
    do_part(recipe, runs, label, "1/3")
    assert digest(recipe, runs, label) == undivided[0][label]
    store, node = node_of(recipe, runs, label)
    metrics = store.metrics(node.id)
    assert metrics["parts"] == 3 and metrics["tokens_per_second"] > 0
    do_part(recipe, runs, label, "2/3")
    assert "is published already" in capsys.readouterr().out


def start(processes, recipe, runs, label, part, slow=0.0):
    process = processes.Process(target=do_part, args=(recipe, runs, label, part, (), slow))
    process.start()
    return process


def end(process):
    process.join(60)
    return process.exitcode


def test_parts_at_once_prepare_once_and_one_of_them_joins(processes, recipe, runs, undivided):
    at_work = [start(processes, recipe, runs, "embed", f"{number}/4", slow=0.02) for number in (1, 2, 3, 4)]
    assert [end(process) for process in at_work] == [0, 0, 0, 0]
    assert digest(recipe, runs, "embed") == undivided[0]["embed"]


def killed(processes, recipe, runs, label, part, least):
    """Start a part and kill it once its stage has that many shards; what lay there then."""
    process = start(processes, recipe, runs, label, part, slow=0.2)
    deadline = time.monotonic() + 60
    while len(shards(recipe, runs, label)) < least and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert end(process) == -signal.SIGKILL
    there = shards(recipe, runs, label)
    assert len(there) >= least, "the part did not begin"
    return {path: path.stat().st_mtime_ns for path in there}


def test_a_killed_part_is_done_again_and_keeps_its_batches(processes, recipe, runs, undivided):
    do_part(recipe, runs, "score.quality", "1/2")
    done = len(shards(recipe, runs, "score.quality"))
    store, node = node_of(recipe, runs, "score.quality")
    batches = len(read_plan(store.work_path(node.id) / "prepared" / "batches.npz").batches)
    there = killed(processes, recipe, runs, "score.quality", "2/2", done + 2)
    assert not is_published(recipe, runs, "score.quality")
    assert do_part(recipe, runs, "score.quality", "2/2") == batches - len(there) > 0
    assert digest(recipe, runs, "score.quality") == undivided[0]["score.quality"]


@pytest.mark.faults
@pytest.mark.parametrize("least", [1, 3, 5, 8])
@pytest.mark.parametrize("label", ["embed", "perplexity"])
def test_parts_killed_at_any_moment(processes, recipe, runs, undivided, label, least):
    others = [start(processes, recipe, runs, label, f"{number}/3", slow=0.1) for number in (1, 3)]
    killed(processes, recipe, runs, label, "2/3", least)
    assert [end(process) for process in others] == [0, 0]
    assert end(start(processes, recipe, runs, label, "2/3")) == 0
    assert digest(recipe, runs, label) == undivided[0][label]


def test_a_run_finishes_what_parts_left(recipe, runs, undivided):
    do_part(recipe, runs, "perplexity", "2/3")
    assert shards(recipe, runs, "perplexity")
    run_stage(recipe, [], runs, "perplexity")
    assert digest(recipe, runs, "perplexity") == undivided[0]["perplexity"]


def test_another_division_takes_over_what_is_done(recipe, runs, undivided, capsys):
    do_part(recipe, runs, "embed", "1/2")
    before = {path: path.stat().st_mtime_ns for path in shards(recipe, runs, "embed")}
    for number in (5, 1, 3, 4):
        do_part(recipe, runs, "embed", f"{number}/5")
    assert before.items() <= {path: path.stat().st_mtime_ns for path in shards(recipe, runs, "embed")}.items()
    batches = [
        pq.read_table(path, columns=["batch"])["batch"].unique().to_pylist() for path in shards(recipe, runs, "embed")
    ]
    numbers = [number for of_shard in batches for number in of_shard]
    assert len(numbers) == len({*numbers}), "a batch was computed twice"
    do_part(recipe, runs, "embed", "2/5")
    assert digest(recipe, runs, "embed") == undivided[0]["embed"]


def test_more_parts_than_batches(recipe, runs, undivided):
    do_part(recipe, runs, "evaluate.base", "prepare", ["evaluate.max_batch_tokens=2000"])
    store, node = node_of(recipe, runs, "evaluate.base")
    batches = len(read_plan(store.work_path(node.id) / "prepared" / "batches.npz").batches)
    computed = [
        do_part(recipe, runs, "evaluate.base", f"{number}/{batches + 1}", ["evaluate.max_batch_tokens=2000"])
        for number in range(1, batches + 2)
    ]
    assert computed == [1] * batches + [0] and batches > 1
    assert store.metrics(node.id)["parts"] == batches + 1


def test_a_run_and_parts_exclude_each_other_and_name_the_other(processes, recipe, runs):
    store, node = node_of(recipe, runs, "embed")
    with hold(store.lock_path(node.id), store.workers_lock_path(node.id), "embed"):
        process = start(processes, recipe, runs, "embed", "1/2")
        assert end(process) == 1  # a UserError, outside the command line
    process = start(processes, recipe, runs, "embed", "1/2", slow=5.0)
    while not shards(recipe, runs, "embed"):
        time.sleep(0.01)
    with pytest.raises(BeingMade, match=rf"^embed is being made by process {process.pid} on .*Wait for it, or stop it"):
        run_stage(recipe, [], runs, "embed")
    with pytest.raises(BeingMade, match=r"another division \(2 parts\) are at work. Give --part K/2"):
        do_part(recipe, runs, "embed", "1/3")
    with pytest.raises(BeingMade, match="parts with other settings"):
        do_part(recipe, runs, "embed", "2/2", ["embedding.max_batch_tokens=100"])
    process.kill()
    process.join()


def test_prepared_beforehand_no_part_prepares(recipe, runs, capsys):
    do_part(recipe, runs, "score.quality", "prepare")
    store, node = node_of(recipe, runs, "score.quality")
    complete = store.work_path(node.id) / "prepared" / "complete"
    prepared = complete.stat().st_mtime_ns
    do_part(recipe, runs, "score.quality", "1/2")
    assert complete.stat().st_mtime_ns == prepared
    assert f"{node.id} is prepared\n" in capsys.readouterr().out


def test_other_settings_prepare_anew_once_nobody_is_at_work(recipe, runs):
    do_part(recipe, runs, "embed", "1/2")
    many = len(shards(recipe, runs, "embed"))
    do_part(recipe, runs, "embed", "1/2", ["embedding.max_batch_tokens=100"])
    assert len(shards(recipe, runs, "embed")) > many
    store, node = node_of(recipe, runs, "embed")
    assert [path.parent.name for path in (store.work_path(node.id) / "parts").glob("*/done.json")] == ["1-of-2"]


def test_a_damaged_shard_is_named_and_computed_again(recipe, runs, undivided, capsys):
    do_part(recipe, runs, "embed", "1/2")
    damaged = shards(recipe, runs, "embed")[0]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    leftover = damaged.with_suffix(".77.tmp")
    leftover.write_bytes(b"half")
    do_part(recipe, runs, "embed", "2/2")
    said = capsys.readouterr().out
    # The last part joins, so it also does again what another one had done.
    assert f"{damaged} is not trusted: " in said and not leftover.exists()
    assert digest(recipe, runs, "embed") == undivided[0]["embed"]


def test_a_part_leaves_what_others_are_writing(recipe, runs):
    do_part(recipe, runs, "embed", "1/3")
    folder = shards(recipe, runs, "embed")[0].parent
    own = {int(path.name[:8]) for path in folder.glob("*.parquet")}
    other = next(number for number in range(100) if number not in own)
    (folder / f"{other:08d}-000001.9.tmp").write_bytes(b"half")
    (folder / f"{min(own):08d}-000001.9.tmp").write_bytes(b"half")
    do_part(recipe, runs, "embed", "1/3")
    assert [path.name for path in folder.glob("*.tmp")] == [f"{other:08d}-000001.9.tmp"]


def test_publishing_that_was_cut_off_is_finished_by_any_part(recipe, runs, undivided, monkeypatch, capsys):
    from deita_train.store.artefacts import Store

    do_part(recipe, runs, "embed", "1/2")
    finish, calls = Store.finish_publishing, []

    def cut_off(self, artefact_id):
        calls.append(artefact_id)
        if len(calls) == 2:  # the first call finds nothing to finish
            raise KeyboardInterrupt
        return finish(self, artefact_id)

    monkeypatch.setattr(Store, "finish_publishing", cut_off)
    with pytest.raises(KeyboardInterrupt):
        do_part(recipe, runs, "embed", "2/2")
    assert not is_published(recipe, runs, "embed")
    do_part(recipe, runs, "embed", "1/2")
    assert "is published already" in capsys.readouterr().out
    assert digest(recipe, runs, "embed") == undivided[0]["embed"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_part_is_refused(recipe, runs, text):
    with pytest.raises(UserError, match=r"that is no part\. Give its number"):
        do_part(recipe, runs, "embed", text)


def test_stages_without_parts_say_so(recipe, runs):
    with pytest.raises(UserError, match=r"^--part: select is not made in parts; .* score, embed, .*Leave --part out"):
        do_part(recipe, runs, "select", "1/2")
    with pytest.raises(UserError, match="embed reads pool, which is not made yet"):
        do_part(recipe, runs.parent / "elsewhere", "embed", "1/2")


def test_a_part_that_another_process_does_waits_for_it(processes, recipe, runs, tmp_path, capsys):
    process = start(processes, recipe, runs, "embed", "1/2", slow=0.1)
    while not shards(recipe, runs, "embed"):
        time.sleep(0.01)
    assert do_part(recipe, runs, "embed", "1/2") == 0
    assert f"embed: part 1/2 is being done by process {process.pid} on " in capsys.readouterr().out
    assert end(process) == 0


def test_a_part_waits_for_the_one_that_joins_and_not_for_a_run(processes, recipe, runs, undivided):
    for number in (1, 2):
        do_part(recipe, runs, "embed", f"{number}/3")
    store, node = node_of(recipe, runs, "embed")
    with closing(ArtefactLock(store, node.id, "embed")) as joining:
        assert joining.take_alone()
        process = start(processes, recipe, runs, "embed", "3/3")
        time.sleep(1.5)
        assert process.is_alive() and not is_published(recipe, runs, "embed")
    assert end(process) == 0
    assert digest(recipe, runs, "embed") == undivided[0]["embed"]


def test_of_two_parts_that_end_together_one_joins(recipe, runs):
    """Each lets go of its share before it counts; whoever counts last finds the other one done and the lock free."""
    store, node = node_of(recipe, runs, "embed")
    with closing(ArtefactLock(store, node.id, "embed")) as one, closing(ArtefactLock(store, node.id, "embed")) as other:
        assert one.share() and other.share() and not one.take_alone()
        assert other.take_alone() and not one.take_alone() and not one.share()
        other.release()
        assert one.take_alone()


def test_an_embedding_along_a_walk_is_not_divided(recipe, runs):
    _, node = node_of(recipe, runs, "embed")
    along = replace(node, identity={**node.identity, "walk": {"method": "deita"}})
    assert is_divided(node) and not is_divided(along)
    with pytest.raises(UserError, match=r"^--part: embed embeds rows along the walk.*State embedding\.rows: all"):
        refuse_undivided(along)

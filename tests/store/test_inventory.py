import fcntl
import json
import os
import signal
import time

import pytest
from stored_runs import make_runs, publish, record

from deita_train.errors import UserError
from deita_train.store.artefacts import Store
from deita_train.store.file_digests import damaged_files
from deita_train.store.inventory import take_inventory
from deita_train.store.model_links import place_link
from deita_train.store.removal import delete_leftovers, removable, remove


@pytest.fixture
def store(tmp_path):
    return make_runs(tmp_path)


def artefact(tmp_path, store, name):
    return next(found for found in take_inventory(store, tmp_path).artefacts if found.id == name)


def unused(tmp_path, store, **options):
    return [found.id for found in removable(take_inventory(store, tmp_path), **options).artefacts]


def test_who_uses_what(tmp_path, store):
    found = {entry.id: (entry.runs, entry.read_by, entry.used) for entry in take_inventory(store, tmp_path).artefacts}
    assert found == {
        "pool-1": ((), ("select-1",), True),
        "select-1": (("mine", "other"), (), True),
        "sft-1": (("mine",), (), True),
        "sft-2": (("mine",), (), True),
        "score-1": (("commands/score-abc",), (), True),
        "oldpool-1": ((), (), False),
        "oldsft-1": ((), (), False),
    }
    assert artefact(tmp_path, store, "sft-1").size == sum(
        path.stat().st_size for path in store.path("sft-1").rglob("*") if path.is_file()
    )


def test_what_a_used_artefact_was_made_from_is_used_at_any_distance(tmp_path, store):
    record(tmp_path, "third", ["oldsft-1"])
    assert artefact(tmp_path, store, "oldpool-1").read_by == ("oldsft-1",)
    assert unused(tmp_path, store) == []


def test_the_base_that_an_adapter_names_is_used(tmp_path, store):
    config = {"base_model_name_or_path": "/elsewhere/store/oldsft-1/model"}
    (store.path("sft-1") / "model" / "adapter_config.json").write_text(json.dumps(config))
    assert artefact(tmp_path, store, "oldsft-1").read_by == ("sft-1",)
    assert unused(tmp_path, store) == []
    (store.path("sft-1") / "model" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/model"}')
    assert unused(tmp_path, store) == ["oldpool-1", "oldsft-1"]


def test_a_run_s_link_keeps_the_model_that_it_leads_to(tmp_path, store):
    place_link(tmp_path / "mine" / "cells" / "cell 1" / "sft", store.path("oldsft-1") / "model")
    assert artefact(tmp_path, store, "oldsft-1").runs == ("mine",)
    assert unused(tmp_path, store) == []


def test_only_what_nothing_uses_is_removed(tmp_path, store):
    chosen = removable(take_inventory(store, tmp_path))
    assert [entry.id for entry in chosen.artefacts] == ["oldpool-1", "oldsft-1"] and chosen.unfinished == ()
    assert chosen.size > 5100
    kept = set(store.published()) - {"oldpool-1", "oldsft-1"}
    assert remove(store, tmp_path, chosen) == ["oldpool-1", "oldsft-1"]
    assert set(store.published()) == kept and len(kept) == 5
    assert not (store.folder / ".removed").exists()
    assert unused(tmp_path, store) == []


def test_what_came_into_use_meanwhile_stays(tmp_path, store):
    chosen = removable(take_inventory(store, tmp_path))
    record(tmp_path, "late", ["oldpool-1"])
    assert remove(store, tmp_path, chosen) == ["oldsft-1"]
    assert store.has("oldpool-1")


@pytest.mark.parametrize("lock", ["lock_path", "workers_lock_path"])
def test_what_a_process_holds_stays(tmp_path, store, lock):
    chosen = removable(take_inventory(store, tmp_path))
    path = getattr(store, lock)("oldpool-1")
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert remove(store, tmp_path, chosen) == ["oldsft-1"]
        assert artefact(tmp_path, store, "oldpool-1").held
        with pytest.raises(UserError, match=r"oldpool-1: being made, and no run names it"):
            removable(take_inventory(store, tmp_path))
    assert unused(tmp_path, store) == ["oldpool-1"]


def unfinished(store, name, days):
    folder = store.folder / ".work" / name
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "one").write_text("12345")
    moment = time.time() - days * 86400
    os.utime(folder / "shards" / "one", (moment, moment))


def test_work_folders_are_removed_only_if_asked_for_and_by_their_age(tmp_path, store):
    unfinished(store, "sft-9", 10)
    unfinished(store, "select-1.replaced", 3)
    unfinished(store, "dpo-9", 1)
    record(tmp_path, "other", ["select-1", "dpo-9"])
    inventory = take_inventory(store, tmp_path)
    found = {
        work.name: (work.id, work.size, round(work.idle_seconds / 86400), work.runs) for work in inventory.unfinished
    }
    assert found == {
        "sft-9": ("sft-9", 5, 10, ()),
        "select-1.replaced": ("select-1", 5, 3, ("mine", "other")),
        "dpo-9": ("dpo-9", 5, 1, ("other",)),
    }
    assert removable(inventory).unfinished == ()
    chosen = removable(inventory, work_idle_seconds=2 * 86400)
    assert [work.name for work in chosen.unfinished] == ["select-1.replaced", "sft-9"]
    assert set(remove(store, tmp_path, chosen)) == {"oldpool-1", "oldsft-1", ".work/select-1.replaced", ".work/sft-9"}
    assert [path.name for path in (store.folder / ".work").iterdir()] == ["dpo-9"]
    assert store.has("select-1")


def test_the_work_folder_of_a_stage_being_made_stays(tmp_path, store):
    unfinished(store, "sft-9", 10)
    record(tmp_path, "third", ["sft-9"])
    store.lock_path("sft-9").parent.mkdir(exist_ok=True)
    with store.lock_path("sft-9").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (work,) = take_inventory(store, tmp_path).unfinished
        assert work.held
        assert removable(take_inventory(store, tmp_path), work_idle_seconds=0).unfinished == ()


def test_a_damaged_record_stops_everything(tmp_path, store):
    (tmp_path / "other" / "stages.json").write_text("{}")
    with pytest.raises(UserError, match=r"other/stages\.json is damaged"):
        take_inventory(store, tmp_path)


def test_an_empty_runs_folder(tmp_path):
    (tmp_path / "store").mkdir()
    inventory = take_inventory(Store(tmp_path / "store"), tmp_path)
    assert inventory.artefacts == () and inventory.unfinished == ()


def test_a_removal_that_was_killed_is_completed_by_the_next(tmp_path, store, monkeypatch):
    chosen = removable(take_inventory(store, tmp_path))

    class Killed(BaseException):
        pass

    def killed(_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("deita_train.store.removal.fsync_folder", killed)
        with pytest.raises(Killed):
            remove(store, tmp_path, chosen)
    assert (store.folder / ".removed" / "oldpool-1" / "manifest.json").is_file()
    assert not store.has("oldpool-1") and "oldpool-1" not in store.published()
    publish(store, "oldpool-1")  # made again before the next removal
    delete_leftovers(store)
    assert store.has("oldpool-1") and not (store.folder / ".removed").exists()


def test_after_a_kill_at_any_moment_every_artefact_is_whole(tmp_path, store):
    for number in range(60):
        publish(store, f"many-{number}", size=20_000)
    kept, delay, kills = set(store.published()) - {"oldpool-1", "oldsft-1"}, 0.0, 0
    kept = {name for name in kept if not name.startswith("many")}
    while set(store.published()) != kept:
        child = os.fork()
        if child == 0:
            try:
                remove(store, tmp_path, removable(take_inventory(store, tmp_path)))
            finally:
                os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert set(store.published()) >= kept
        for name in store.published():
            assert damaged_files(store.path(name)) == [] and store.manifest(name).id == name
        delay += 0.005
    assert kills > 1
    delete_leftovers(store)
    assert {path.name for path in store.folder.iterdir()} == {*kept, ".locks", ".work"}

import json
from pathlib import Path

import pytest

from deita_train.errors import UserError
from deita_train.store import artefacts
from deita_train.store.artefacts import MANIFEST, METRICS, PUBLISHED, Manifest, Store
from deita_train.store.file_digests import FILE_DIGESTS

ID = "sft-0123456789ab"


def manifest(**changes):
    values = {
        "id": ID,
        "key": "0123456789ab" + "0" * 52,
        "kind": "sft",
        "label": "sft",
        "config": {"seed": 7},
        "parent_digests": {},
        "parents": {"data": "select-ba9876543210"},
        "rows_in": 3,
        "rows_out": 2,
        "drops": {"empty": 1},
        "content_digest": "d",
        "seed": 7,
        "versions": {"python": "3"},
        "device": "cpu",
        "world_size": 1,
        "distributed_type": "NO",
        "threads": 1,
        "command": "deita-train stage",
        "started": "2026-01-01 00:00:00",
        "wall_seconds": 1.5,
    }
    return Manifest(**(values | changes))


@pytest.fixture
def store(tmp_path):
    """A store with one finished work folder: what is published, and what only served to make it."""
    store = Store(tmp_path / "store")
    fill(store, "first")
    return store


def fill(store, text):
    work = store.work_path(ID)
    for folder in ("data", "model", "trace", "files", "logs", "prepared", "trainer/checkpoint-3", "shards"):
        (work / folder).mkdir(parents=True)
        (work / folder / "file").write_text(text)
    for name in ("result.json", "progress.json", ".hidden"):
        (work / name).write_text("{}")


def test_only_what_belongs_to_the_artefact_is_published(store):
    assert not store.has(ID)
    path = store.publish(manifest(), {"loss": 0.5})
    assert path == store.path(ID) == store.folder / ID
    assert {entry.name for entry in path.iterdir()} == set(PUBLISHED)
    assert (path / "data" / "file").read_text() == "first"
    assert not store.work_path(ID).exists()
    assert store.has(ID)


def test_manifest_and_metrics_are_read_back(store):
    store.publish(manifest(), {"loss": 0.5, "heldout": None})
    assert store.manifest(ID) == manifest()
    assert store.metrics(ID) == {"loss": 0.5, "heldout": None}


def test_the_manifest_is_written_last(store, monkeypatch):
    steps = []
    write, sync, rename = artefacts.write_json_atomically, artefacts.fsync_tree, Path.rename

    def noted(step, real):
        def call(path, *rest):
            steps.append((step, path.name))
            return real(path, *rest)

        return call

    monkeypatch.setattr(artefacts, "write_json_atomically", noted("write", write))
    monkeypatch.setattr(artefacts, "fsync_tree", noted("sync", sync))
    monkeypatch.setattr(Path, "rename", noted("rename", rename))
    store.publish(manifest(), {})
    synced = [("sync", name) for name in ("data", "trace", "model", "files")]
    assert steps == [("write", METRICS), *synced, ("write", FILE_DIGESTS), ("write", MANIFEST), ("rename", ID)]


class Killed(BaseException):
    pass


def kill_at(monkeypatch, name, when=lambda *given: True, owner=artefacts):
    real = getattr(owner, name)

    def call(*given):
        if when(*given):
            raise Killed
        return real(*given)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    ("name", "when", "owner"),
    [
        ("write_json_atomically", lambda path, value: path.name == METRICS, artefacts),
        ("fsync_tree", lambda path: True, artefacts),
        ("write_json_atomically", lambda path, value: path.name == MANIFEST, artefacts),
        ("rename", lambda path, target: True, Path),
    ],
)
def test_a_kill_before_the_rename_publishes_nothing(store, monkeypatch, name, when, owner):
    with monkeypatch.context() as patch:
        kill_at(patch, name, when, owner)
        with pytest.raises(Killed):
            store.publish(manifest(), {"loss": 0.5})
    assert not store.has(ID)
    assert not store.path(ID).exists()
    assert (store.work_path(ID) / "model" / "file").exists()
    store.publish(manifest(), {"loss": 0.5})
    assert store.metrics(ID) == {"loss": 0.5}


def test_an_artefact_made_anew_replaces_the_old_one(store):
    store.publish(manifest(), {"loss": 1.0})
    fill(store, "second")
    (store.work_path(ID) / "trace" / "file").unlink()
    store.publish(manifest(started="2026-01-02 00:00:00"), {"loss": 0.5})
    assert (store.path(ID) / "data" / "file").read_text() == "second"
    assert not (store.path(ID) / "trace" / "file").exists()
    assert store.manifest(ID).started == "2026-01-02 00:00:00"
    assert list((store.folder / ".work").iterdir()) == []


def test_the_old_artefact_stays_until_the_new_one_is_complete(store, monkeypatch):
    store.publish(manifest(), {"loss": 1.0})
    fill(store, "second")
    with monkeypatch.context() as patch:
        kill_at(patch, "write_json_atomically", lambda path, value: path.name == MANIFEST)
        with pytest.raises(Killed):
            store.publish(manifest(), {"loss": 0.5})
    assert store.has(ID)
    assert store.metrics(ID) == {"loss": 1.0}


def test_what_a_killed_replacement_left_is_removed(store, monkeypatch):
    store.publish(manifest(), {"loss": 1.0})
    fill(store, "second")
    with monkeypatch.context() as patch:
        kill_at(patch, "rename", lambda path, target: path == store.work_path(ID), Path)
        with pytest.raises(Killed):
            store.publish(manifest(), {"loss": 0.5})
    assert not store.has(ID)
    store.publish(manifest(), {"loss": 0.5})
    assert store.metrics(ID) == {"loss": 0.5}
    assert list((store.folder / ".work").iterdir()) == []


def test_a_replaced_artefact_that_a_kill_left_is_in_nobodys_way(store, monkeypatch):
    store.publish(manifest(), {"loss": 1.0})
    fill(store, "second")
    with monkeypatch.context() as patch:
        kill_at(patch, "remove_tree", lambda path: path.name.endswith(".replaced") and path.exists())
        with pytest.raises(Killed):
            store.publish(manifest(), {"loss": 0.5})
    assert store.metrics(ID) == {"loss": 0.5}
    fill(store, "third")
    store.publish(manifest(), {"loss": 0.25})
    assert store.metrics(ID) == {"loss": 0.25}
    assert list((store.folder / ".work").iterdir()) == []


def test_a_folder_without_a_manifest_is_not_published(store):
    store.path(ID).mkdir(parents=True)
    (store.path(ID) / "data").mkdir()
    assert not store.has(ID)


@pytest.mark.parametrize("text", ["{", '{"id": "x"}', '{"unknown": 1}', "[1]"])
def test_a_damaged_manifest_is_named(store, text):
    store.publish(manifest(), {})
    (store.path(ID) / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is damaged .*; remove .* and run again\.$"):
        store.manifest(ID)


def test_metrics_that_json_does_not_have_publish_nothing(store):
    with pytest.raises(ValueError, match="Out of range"):
        store.publish(manifest(), {"loss": float("nan")})
    assert not store.has(ID)


def test_the_files_of_one_artefact_have_places_of_their_own(store):
    paths = {store.path(ID), store.work_path(ID), store.lock_path(ID), store.workers_lock_path(ID)}
    assert len(paths) == 4
    assert all(path.is_relative_to(store.folder) for path in paths)
    store.publish(manifest(), {})
    assert json.loads((store.path(ID) / MANIFEST).read_text())["id"] == ID


def test_a_kill_between_the_manifest_and_the_move_costs_nothing(store, monkeypatch):
    kill_at(monkeypatch, "rename", lambda path, target: True, Path)
    with pytest.raises(Killed):
        store.publish(manifest(), {"loss": 0.5})
    monkeypatch.undo()
    assert not store.has(ID)
    assert store.finish_publishing(ID)
    assert store.has(ID) and store.metrics(ID) == {"loss": 0.5}
    assert not store.finish_publishing(ID), "there is nothing left to move"

"""Links to models: where they lead, what is never touched, and a file system that has none."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from deita_train.store.keys import ContentHashes
from deita_train.store.model_links import (
    artefact_of,
    base_links,
    cell_folders,
    links_of,
    place_link,
    remove_dead_links,
    remove_link,
)


@pytest.fixture
def runs(tmp_path):
    """A runs folder with two models."""
    for name in ("sft-1", "sft-2"):
        model = tmp_path / "store" / name / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text(name)
    return tmp_path


def model(runs, name):
    return runs / "store" / name / "model"


def test_a_link_is_relative_and_is_replaced(runs):
    link = runs / "mine" / "sft"
    for name in ("sft-1", "sft-2", "sft-2"):
        assert place_link(link, model(runs, name))
        assert str(link.readlink()) == f"../store/{name}/model"
        assert (link / "config.json").read_text() == name
    assert [path.name for path in link.parent.iterdir()] == ["sft"], "nothing temporary stays"
    deep = runs / "mine" / "cells" / "seed 1" / "sft"
    assert place_link(deep, model(runs, "sft-1")) and str(deep.readlink()) == "../../../store/sft-1/model"


def test_a_moved_runs_folder_keeps_its_links(runs):
    assert place_link(runs / "mine" / "sft", model(runs, "sft-1"))
    moved = runs.rename(runs.with_name("moved"))
    assert (moved / "mine" / "sft" / "config.json").read_text() == "sft-1"


def test_a_model_is_the_same_through_its_link(runs):
    link = runs / "mine" / "sft"
    place_link(link, model(runs, "sft-1"))
    hashes = ContentHashes(runs / "hashes.json")
    assert hashes.of(link) == hashes.of(model(runs, "sft-1")) != hashes.of(model(runs, "sft-2"))


def test_there_is_no_link_to_what_is_not_there(runs):
    link = runs / "mine" / "sft"
    assert not place_link(link, model(runs, "sft-3"))
    assert not os.path.lexists(link)


def occupy(place, how, runs):
    place.parent.mkdir()
    if how == "a folder":
        place.mkdir()
        (place / "weights").write_text("precious")
    elif how == "a file":
        place.write_text("precious")
    else:
        (runs / "elsewhere").mkdir()
        place.symlink_to("../elsewhere")
    return place.lstat().st_ino


@pytest.mark.parametrize("how", ["a folder", "a file", "a link to elsewhere"])
def test_what_is_no_link_of_ours_stays(runs, how):
    place = runs / "mine" / "sft"
    before = occupy(place, how, runs)
    assert not place_link(place, model(runs, "sft-1"))
    remove_link(place)
    remove_dead_links(place.parent)
    assert place.lstat().st_ino == before and not list(links_of(place.parent))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_without_symbolic_links_a_file_says_where(runs, monkeypatch, number):
    def refuse(self, target, target_is_directory=False):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    link = runs / "mine" / "sft"
    for name in ("sft-1", "sft-2"):
        assert place_link(link, model(runs, name))
        assert link.read_text() == f"The model is in ../store/{name}/model, seen from this folder.\n"
    assert artefact_of(link) == "sft-2"
    remove_dead_links(link.parent)
    assert base_links(link.parent) == {"sft": link} and len(list(link.parent.iterdir())) == 1
    monkeypatch.undo()
    assert place_link(link, model(runs, "sft-1")) and link.is_symlink()
    remove_link(link)
    assert not os.path.lexists(link)


def test_a_full_disk_is_no_lack_of_links(runs, monkeypatch):
    def refuse(self, target, target_is_directory=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match="No space left"):
        place_link(runs / "mine" / "sft", model(runs, "sft-1"))


def test_links_go_with_their_models_and_the_folders_of_their_cells_with_them(runs):
    run_dir = runs / "mine"
    links = [run_dir / place for place in ("sft", "dpo", "cells/a/sft", "cells/b/sft", "cells/b/dpo")]
    for number, link in enumerate(links):
        place_link(link, model(runs, f"sft-{1 + number % 2}"))
    (run_dir / "stages.json").touch()
    remove_dead_links(run_dir)
    assert list(links_of(run_dir)) == links and list(base_links(run_dir)) == ["sft", "dpo"]
    assert [artefact_of(link) for link in links[:2]] == ["sft-1", "sft-2"]
    shutil.rmtree(model(runs, "sft-1"))
    remove_dead_links(run_dir)
    assert list(links_of(run_dir)) == [links[1], links[3]]
    assert not (run_dir / "cells" / "a").exists()
    remove_dead_links(run_dir, without=["sft-2"])
    assert [path.name for path in run_dir.iterdir()] == ["stages.json"]


def test_cells_have_folders_of_their_own():
    labels = ["deita, budget 500", "model org/base", "model org_base", "..", "x" * 300, "é" * 200]
    folders = cell_folders(labels)
    assert list(folders) == labels
    assert list(folders.values()) == [
        "deita, budget 500", "model org_base", "model org_base (3)", ".. (4)", "x" * 200, "é" * 100,
    ]  # fmt: skip

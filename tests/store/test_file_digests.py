import hashlib

import pytest

from deita_train.errors import UserError
from deita_train.store.atomic_io import write_json_atomically
from deita_train.store.file_digests import FILE_DIGESTS, damaged_files, file_digests


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "data/a.arrow": "rows",
        "model/deep/config.json": "{}",
        "metrics.json": "{}",
        "logs/x": "log",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write_json_atomically(tmp_path / FILE_DIGESTS, file_digests(tmp_path))
    return tmp_path


def test_every_file_but_the_logs_has_its_size_and_digest(folder):
    assert file_digests(folder) == {
        "metrics.json": [2, hashlib.sha256(b"{}").hexdigest()],
        "data/a.arrow": [4, hashlib.sha256(b"rows").hexdigest()],
        "model/deep/config.json": [2, hashlib.sha256(b"{}").hexdigest()],
    }
    assert damaged_files(folder) == []


def test_each_kind_of_damage_is_named_with_its_file(folder):
    (folder / "data" / "a.arrow").write_text("ROWS")
    (folder / "model" / "deep" / "config.json").write_text("{ }")
    (folder / "metrics.json").unlink()
    (folder / "files").mkdir()
    (folder / "files" / "new.txt").write_text("")
    (folder / "logs" / "x").write_text("other")
    assert damaged_files(folder) == [
        "data/a.arrow has other content than when it was published",
        "files/new.txt is no file of this artefact",
        "metrics.json is missing",
        "model/deep/config.json has 3 bytes instead of 2",
    ]


def test_an_artefact_of_an_earlier_version_has_no_digests(folder):
    (folder / FILE_DIGESTS).unlink()
    assert damaged_files(folder) is None


def test_damaged_digests_are_told(folder):
    (folder / FILE_DIGESTS).write_text("{")
    with pytest.raises(UserError, match=r"digests\.json is damaged"):
        damaged_files(folder)

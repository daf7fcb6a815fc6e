"""`deita-train store` on a runs folder made by hand."""

import json

import pytest
from stored_runs import make_runs
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.store_tables import bytes_text
from deita_train.errors import UserError


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEITA_RUNS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return make_runs(tmp_path)


def invoke(*words):
    answer = CliRunner().invoke(app, ["store", *words])
    return answer.output, answer.exception


def test_ls_shows_size_and_use(store):
    output, error = invoke("ls")
    assert error is None
    lines = {line.split()[0]: line for line in output.splitlines() if line.split()}
    assert "mine, other" in lines["select-1"] and lines["oldsft-1"].rstrip().endswith("nothing")
    assert "read by select-1" in lines["pool-1"] and " kB " in lines["sft-1"]
    assert "7 artefacts" in output and "Nothing uses 2 " in output
    data = json.loads(invoke("ls", "--json")[0])
    assert [entry["id"] for entry in data["artefacts"]] == store.published()
    assert next(entry for entry in data["artefacts"] if entry["id"] == "select-1")["runs"] == ["mine", "other"]


def test_gc_shows_first_and_removes_with_yes(store):
    output, error = invoke("gc")
    assert error is None and "oldsft-1" in output and "sft-2" not in output
    assert "Nothing was removed. --yes removes 2 folders" in output
    assert len(store.published()) == 7
    output, _ = invoke("gc", "--yes")
    assert "Removed 2 folders." in output and len(store.published()) == 5
    assert "Nothing to remove" in invoke("gc")[0]
    assert json.loads(invoke("gc", "--json")[0]) == {"size": 0, "removed": [], "artefacts": [], "unfinished": []}


def test_verify_names_the_damaged_file(store):
    output, error = invoke("verify")
    assert error is None and "7 of 7 artefacts are as they were published." in output
    weights = store.path("sft-1") / "model" / "weights"
    weights.write_bytes(weights.read_bytes()[:-1] + b"y")
    (store.path("pool-1") / "manifest.json").write_text("{")
    (store.path("score-1") / "manifest.json").write_text((store.path("sft-2") / "manifest.json").read_text())
    output, error = invoke("verify")
    assert f"{store.path('sft-1')}: model/weights has other content than when it was published" in output
    assert "manifest.json is that of sft-2" in output and "manifest.json is damaged" in output
    assert "4 of 7 artefacts" in output
    assert isinstance(error, UserError) and "pool-1, score-1, sft-1" in str(error)
    assert invoke("verify", "sft-2")[1] is None
    data = json.loads(invoke("verify", "sft-1", "sft-2", "--json")[0])
    assert data["checked"] == 2 and list(data["damaged"]) == ["sft-1"]
    assert "did you mean select-1?" in str(invoke("verify", "selekt-1")[1])


def test_a_folder_without_a_store_is_told(tmp_path):
    assert "has no store" in str(invoke("ls", "--runs", str(tmp_path))[1])


def test_bytes_as_text():
    assert [bytes_text(size) for size in (0, 999, 1000, 26_000_000_000)] == ["0 B", "999 B", "1.0 kB", "26.0 GB"]

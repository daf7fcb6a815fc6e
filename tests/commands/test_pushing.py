"""Uploads to the Hub: what is sent, what is refused, and what a server's answers are told as."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.pushing import upload_to_hub
from deita_train.commands.uploads import find_upload
from deita_train.data.json_text import json_array
from deita_train.errors import UserError
from deita_train.recipe.loading import load_recipe
from deita_train.store.artefacts import Manifest, Store

DIGEST, COMMIT = "0123456789abcdef" * 4, "b" * 40
CARD = f'# a card of {DIGEST}\nplace = "path/to/this/model"\n'
MODEL = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
}


SELECTED, PAIRS = "a1" * 32, "b2" * 32
SELECTION_CARD = f'# a card of {SELECTED}\nrows = load_dataset("user/name", split="train")\n'
MESSAGES = [{"role": "user", "content": "naïve\n東京"}, {"role": "assistant", "content": "ok"}]


def selected_rows():
    """Two rows with a list that has a null, and a column of JSON."""
    texts, scores = datasets.Value("string"), datasets.List(datasets.Value("float32"))
    messages = datasets.List({"role": texts, "content": texts})
    features = datasets.Features(id=texts, messages=messages, quality_scores=scores, tools=datasets.Json())
    columns = [["b", "a"], [MESSAGES, MESSAGES[:1]], [[1.5, None], [6.0]]]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, features.arrow_schema.types, strict=False)]
    table = pa.table([*arrays, json_array(['{"n": 0.700000}', None])], names=list(features))
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def publish(store, artefact, files, digest=DIGEST, rows=None):
    work = store.work_path(artefact)
    beside = {"logs/rank0.log": "a log", "checkpoints/checkpoint-4/optimizer.pt": "momentum"}
    for name, text in ({f"model/{name}": text for name, text in files.items()} | beside).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    if rows is not None:
        rows.save_to_disk(str(work / "data"))
    values = {name: None for name in Manifest.__dataclass_fields__} | {"id": artefact, "content_digest": digest}
    store.publish(Manifest(**values), {})


@pytest.fixture
def run(tmp_path):
    """A run of two cells with a published SFT model each, selections, a DPO stage that was not made, and the cards."""
    folder = tmp_path / "runs" / "mine"
    (folder / "report" / "cards").mkdir(parents=True)
    store = Store(tmp_path / "runs" / "store")
    publish(store, "sft-a", MODEL)
    publish(store, "sft-b", MODEL, digest="f" * 64)
    publish(store, "select-a", {}, digest=SELECTED, rows=selected_rows())
    pairs = datasets.Dataset.from_dict({"id": ["p"], "prompt": [MESSAGES[:1]], "chosen": ["yes"], "rejected": ["no"]})
    publish(store, "select_pairs-a", {}, digest=PAIRS, rows=pairs)
    (folder / "report" / "cards" / "sft.md").write_text(CARD)
    (folder / "report" / "cards" / "select.md").write_text(SELECTION_CARD)
    (folder / "report" / "cards" / "dpo_pairs.md").write_text(PAIRS)
    (folder / "report" / "cards" / "sft-b.md").write_text("of " + "f" * 64)
    cells = [
        {
            "label": "base run",
            "settings": {},
            "base": True,
            "stages": {
                "sft": "sft-a",
                "dpo": "dpo-a",
                "pool": "pool-a",
                "select": "select-a",
                "dpo_pairs": "select_pairs-a",
            },
        },
        {"label": "seed 2", "settings": {"sft.seed": 2}, "base": False, "stages": {"sft": "sft-b"}},
    ]
    (folder / "stages.json").write_text(
        json.dumps({"name": "mine", "description": "", "seed": 1, "cells": cells, "nodes": {}})
    )
    return folder


@pytest.fixture
def hub(monkeypatch):
    """A Hub that writes down what is asked of it."""
    calls, there = [], SimpleNamespace(private=True, files=[".gitattributes", "README.md"])

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, repo, *, repo_type, private, exist_ok):
            there.repo_type = repo_type
            calls.append(("create_repo", repo, private, exist_ok))
            return f"https://huggingface.co/{'datasets/' if repo_type == 'dataset' else ''}{repo}"

        def repo_info(self, repo, *, repo_type):
            assert repo_type == there.repo_type
            return there

        def list_repo_files(self, repo, *, repo_type):
            assert repo_type == there.repo_type
            return there.files

        def create_commit(self, repo, operations, *, commit_message, repo_type):
            assert repo_type == there.repo_type
            contents = ((of.path_in_repo, of.path_or_fileobj) for of in operations)
            there.sent = {name: at if isinstance(at, bytes) else Path(at).read_bytes() for name, at in contents}
            calls.append(("create_commit", repo, operations, commit_message))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return SimpleNamespace(calls=calls, there=there)


def sent(hub):
    """The texts of the last commit by name."""
    return {name: content.decode() for name, content in hub.there.sent.items()}


def test_one_commit_holds_the_model_and_its_card_and_nothing_else(run, hub):
    answer = CliRunner().invoke(app, ["push", str(run), "--stage", "sft", "--repo", "me/model", "--private"])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[-1] == "https://huggingface.co/me/model"
    created, (_, repo, _, message) = hub.calls
    assert created == ("create_repo", "me/model", True, True) and repo == "me/model" and hub.there.repo_type == "model"
    assert message.startswith("sft-a of run mine, by deita-train ")
    assert sent(hub) == MODEL | {"README.md": f'# a card of {DIGEST}\nplace = "me/model"\n'}


@pytest.mark.parametrize("cell", ["1", "seed 2"])
def test_a_sweeps_cell_is_named_by_number_or_label(run, hub, cell):
    assert find_upload(run, "sft", cell).artefact == "sft-b"
    upload_to_hub(find_upload(run, "sft", cell), "me/model", run, private=False)
    assert sent(hub)["README.md"] == "of " + "f" * 64
    assert hub.calls[0] == ("create_repo", "me/model", None, True)


def refuse(message, run, *, stage="sft", cell=None, repo="me/model", private=False):
    with pytest.raises(UserError, match=message):
        upload_to_hub(find_upload(run, stage, cell), repo, run, private=private)


def test_what_cannot_be_uploaded_is_refused_before_the_hub_is_asked(run, hub, tmp_path, monkeypatch):
    refuse("is not a run", tmp_path)
    refuse(r"dpo-a\) is not made yet", run, stage="dpo")
    refuse("no such stage; of those that leave something for the Hub it has sft", run, stage="dpo", cell="1")
    refuse("--cell 7: .* no such cell", run, cell="7")
    refuse("is named user/name", run, repo="model")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    refuse("not logged in", run)
    (run / "report" / "cards" / "sft.md").write_text("of an older model")
    refuse(f"deita-train report {run}", run)
    (run / "report" / "cards" / "sft.md").unlink()
    refuse("no card of sft-a", run)
    (tmp_path / "runs" / "store" / "sft-a" / "model" / "optimizer.pt").write_text("")
    (run / "report" / "cards" / "sft.md").write_text(CARD)
    refuse("not part of a published model: optimizer.pt", run)
    assert hub.calls == []


def test_a_public_repository_and_another_models_weights_are_left_alone(run, hub):
    hub.there.private = False
    refuse("is there already and is public", run, private=True)
    hub.there.files = ["README.md", "model-00001-of-00002.safetensors", "model.safetensors", "notes.md"]
    refuse(r"holds weights .*: model-00001-of-00002.safetensors\.", run)
    assert [name for name, *_ in hub.calls] == ["create_repo", "create_repo"]


def test_one_commit_holds_the_selected_rows_and_their_card(run, hub, tmp_path):
    answer = CliRunner().invoke(app, ["push", str(run), "--stage", "select", "--repo", "me/rows"])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[-1] == "https://huggingface.co/datasets/me/rows"
    created, (_, repo, _, message) = hub.calls
    assert created == ("create_repo", "me/rows", None, True) and repo == "me/rows"
    assert hub.there.repo_type == "dataset" and message.startswith("select-a of run mine, by deita-train ")
    assert set(hub.there.sent) == {"README.md", "data/train-00000-of-00001.parquet"}
    assert hub.there.sent["README.md"].decode() == SELECTION_CARD.replace("user/name", "me/rows")
    table = pq.read_table(pa.BufferReader(hub.there.sent["data/train-00000-of-00001.parquet"]))
    assert table["id"].to_pylist() == ["b", "a"] and table["messages"].to_pylist() == [MESSAGES, MESSAGES[:1]]
    assert sorted(path.name for path in run.iterdir()) == ["report", "stages.json"], "nothing is left of the upload"


def test_selected_pairs_are_uploaded_too(run, hub):
    upload_to_hub(find_upload(run, "dpo_pairs", None), "me/pairs", run, private=True)
    assert hub.there.repo_type == "dataset"
    table = pq.read_table(pa.BufferReader(hub.there.sent["data/train-00000-of-00001.parquet"]))
    assert table.to_pylist() == [{"id": "p", "prompt": MESSAGES[:1], "chosen": "yes", "rejected": "no"}]


def test_what_cannot_be_uploaded_of_a_selection_is_refused(run, hub, monkeypatch):
    refuse("no such stage; of those that leave something for the Hub it has sft", run, stage="select", cell="1")
    (run / "report" / "cards" / "select.md").write_text("of an older selection")
    refuse(f"no card of select-a: .*deita-train report {run}", run, stage="select")
    (run / "report" / "cards" / "select.md").write_text(SELECTION_CARD)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    refuse("not logged in", run, stage="select")
    assert hub.calls == []


def test_a_dataset_does_not_join_a_public_repository_or_other_rows(run, hub):
    hub.there.private = False
    refuse("is there already and is public", run, stage="select", private=True)
    hub.there.files = ["README.md", ".gitattributes", "notes.md", "data/train-00000-of-00001.parquet"]
    upload_to_hub(find_upload(run, "select", None), "me/rows", run, private=False)
    hub.there.files += ["data/train-00001-of-00002.parquet", "test.jsonl"]
    refuse("holds data .*: data/train-00001-of-00002.parquet, test.jsonl. Remove", run, stage="select")
    assert [name for name, *_ in hub.calls] == ["create_repo", "create_repo", "create_commit", "create_repo"]


@pytest.mark.parametrize("stage", ["sft", "select", "dpo_pairs"])
def test_nothing_of_a_rehearsal_is_uploaded_or_exported(run, hub, tmp_path, stage):
    (run / "rehearsal.json").write_text("[]")
    refuse("is a rehearsal", run, stage=stage)
    answer = CliRunner().invoke(app, ["export", str(run), "--stage", stage, "--output", str(tmp_path / "out")])
    assert isinstance(answer.exception, UserError) and not (tmp_path / "out").exists()
    assert hub.calls == []


def export(run, stage, output, *more):
    answer = CliRunner().invoke(app, ["export", str(run), "--stage", stage, "--output", str(output), *more])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_an_exported_selection_is_loaded_with_equal_rows_and_features(run, tmp_path):
    files = export(run, "select", tmp_path / "out")
    assert set(files) == {"README.md", "data/train-00000-of-00001.parquet"}
    assert files["README.md"].decode() == SELECTION_CARD
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    kept = datasets.load_from_disk(str(tmp_path / "runs" / "store" / "select-a" / "data"))
    assert loaded[:] == kept[:] and loaded.features == kept.features
    assert loaded[0]["tools"] == {"n": 0.7} and loaded[0]["quality_scores"] == [1.5, None]


def test_an_export_is_the_same_bytes_again_and_replaces_only_an_export(run, tmp_path):
    out = tmp_path / "out"
    assert export(run, "select", out) == export(run, "select", out) == export(run, "select", tmp_path / "two")
    with pytest.raises(UserError, match="is there already"):
        export(run, "dpo_pairs", out)
    files = export(run, "dpo_pairs", out, "--overwrite")
    assert files["README.md"].decode() == PAIRS
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own")
    with pytest.raises(UserError, match="not one that this command replaces"):
        export(run, "select", tmp_path / "mine", "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "runs", "two"], "nothing half"


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda *arguments: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export(run, "select", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_model_is_exported_with_its_card(run, tmp_path):
    files = export(run, "sft", tmp_path / "out")
    assert {name: content.decode() for name, content in files.items()} == MODEL | {"README.md": CARD}


@pytest.mark.parametrize(
    ("base", "revision", "allowed"),
    [("org/base", COMMIT, True), ("org/base", None, False), ("/here/base", None, False), ("/here/base", COMMIT, False)],
)
def test_an_adapter_needs_a_base_of_the_hub(run, hub, tmp_path, base, revision, allowed):
    model = tmp_path / "runs" / "store" / "sft-a" / "model"
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "revision": revision}
    (model / "adapter_config.json").write_text(json.dumps(config))
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    (model / "config.json").unlink()
    if allowed:
        upload_to_hub(find_upload(run, "sft", None), "me/model", run, private=False)
        assert {"adapter_config.json", "adapter_model.safetensors"} < set(sent(hub))
    else:
        refuse("merge_adapter: true", run)


class Answers(BaseHTTPRequestHandler):
    """Refuses every request with the status that the server was given."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"error": "said by the server"}')

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


def push_to(run, endpoint, **environment):
    """`deita-train push` in a process of its own, because the Hub's library reads its endpoint once."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-m", "deita_train.cli", "push", str(run), "--stage", "sft", "--repo", "me/model"]
    environment = {**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(run / "hf"), "HF_TOKEN": "hf_abc", **environment}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("error: ") and "Traceback" not in answer.stderr
    return answer.stderr


@pytest.mark.parametrize(
    ("status", "told"), [(401, "log in again"), (403, "the token may not write there"), (404, "no such user")]
)
def test_a_servers_refusal_is_reported_with_what_to_do(run, status, told):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.status, server.asked = status, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        message = push_to(run, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
    assert "me/model: the Hub refuses" in message and f"with {status} (" in message and told in message
    assert "said by the server" in message
    assert "/api/repos/create" in server.asked


def test_no_network_and_a_hub_that_is_switched_off_are_reported(run):
    assert "the Hub does not answer" in push_to(run, "http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE" in push_to(run, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "not logged in" in push_to(run, "http://127.0.0.1:9", HF_TOKEN="")


@pytest.mark.parametrize("field", ["push_to_hub: true", "hub_token: hf_abc", "hub_model_id: me/model"])
def test_a_recipe_that_wants_to_push_is_reported_of_the_command(tmp_path, field):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nsft:\n  model: org/base\n  global_batch_size: 8\n  trainer: {{{field}}}\n")
    with pytest.raises(UserError, match="deita-train push"):
        load_recipe(path)

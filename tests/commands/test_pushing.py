"""Uploads to the Hub: what is sent, what is refused, and what a server's answers are told as."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.pushing import find_upload, push
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


def publish(store, artefact, files, digest=DIGEST):
    work = store.work_path(artefact)
    beside = {"logs/rank0.log": "a log", "checkpoints/checkpoint-4/optimizer.pt": "momentum"}
    for name, text in ({f"model/{name}": text for name, text in files.items()} | beside).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    values = {name: None for name in Manifest.__dataclass_fields__} | {"id": artefact, "content_digest": digest}
    store.publish(Manifest(**values), {})


@pytest.fixture
def run(tmp_path):
    """A run of two cells with a published SFT model each, a DPO stage that was not made, and the cards."""
    folder = tmp_path / "runs" / "mine"
    (folder / "report" / "cards").mkdir(parents=True)
    store = Store(tmp_path / "runs" / "store")
    publish(store, "sft-a", MODEL)
    publish(store, "sft-b", MODEL, digest="f" * 64)
    (folder / "report" / "cards" / "sft.md").write_text(CARD)
    (folder / "report" / "cards" / "sft-b.md").write_text("of " + "f" * 64)
    cells = [
        {
            "label": "base run",
            "settings": {},
            "base": True,
            "stages": {"sft": "sft-a", "dpo": "dpo-a", "pool": "pool-a"},
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

        def create_repo(self, repo, *, private, exist_ok):
            calls.append(("create_repo", repo, private, exist_ok))
            return f"https://huggingface.co/{repo}"

        def repo_info(self, repo):
            return there

        def list_repo_files(self, repo):
            return there.files

        def create_commit(self, repo, operations, *, commit_message):
            calls.append(("create_commit", repo, operations, commit_message))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return SimpleNamespace(calls=calls, there=there)


def sent(hub):
    """The contents of the last commit by name."""
    *_, (_, _, operations, _) = hub.calls
    contents = ((operation.path_in_repo, operation.path_or_fileobj) for operation in operations)
    return {name: at.decode() if isinstance(at, bytes) else Path(at).read_text() for name, at in contents}


def test_one_commit_holds_the_model_and_its_card_and_nothing_else(run, hub):
    answer = CliRunner().invoke(app, ["push", str(run), "--stage", "sft", "--repo", "me/model", "--private"])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[-1] == "https://huggingface.co/me/model"
    created, (_, repo, _, message) = hub.calls
    assert created == ("create_repo", "me/model", True, True) and repo == "me/model"
    assert message.startswith("sft-a of run mine, by deita-train ")
    assert sent(hub) == MODEL | {"README.md": f'# a card of {DIGEST}\nplace = "me/model"\n'}


@pytest.mark.parametrize("cell", ["1", "seed 2"])
def test_a_sweeps_cell_is_named_by_number_or_label(run, hub, cell):
    assert find_upload(run, "sft", cell).artefact == "sft-b"
    push(find_upload(run, "sft", cell), "me/model", private=False)
    assert sent(hub)["README.md"] == "of " + "f" * 64
    assert hub.calls[0] == ("create_repo", "me/model", None, True)


def refuse(message, run, *, stage="sft", cell=None, repo="me/model", private=False):
    with pytest.raises(UserError, match=message):
        push(find_upload(run, stage, cell), repo, private=private)


def test_what_cannot_be_uploaded_is_refused_before_the_hub_is_asked(run, hub, tmp_path, monkeypatch):
    refuse("is not a run", tmp_path)
    refuse(r"dpo-a\) is not made yet", run, stage="dpo")
    refuse("no such stage; it tunes sft", run, stage="dpo", cell="1")
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
        push(find_upload(run, "sft", None), "me/model", private=False)
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

import json
import re
import socket

import pytest
from tiny_recipe import graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import inputs
from deita_train.plan.hub_commits import NotOnHub, resolve_commit
from deita_train.plan.inputs import Inputs
from deita_train.store.keys import ContentHashes

pytestmark = pytest.mark.usefixtures("no_gpus")
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(monkeypatch):
    """What the Hub answers, by (kind, name, revision); every question is noted."""
    answers, asked = {}, []

    def resolve(kind, name, revision):
        asked.append((kind, name, revision))
        return answers.get((kind, name, revision))

    monkeypatch.setattr(inputs, "resolve_commit", resolve)
    return answers, asked


def hub_recipe(**changes):
    return recipe(pool={"dataset": "org/rows", "split": "train"}, **changes)


def refusal(folder, data):
    with pytest.raises(UserError) as caught:
        graph(folder, data)
    return str(caught.value).removeprefix(f"{folder / 'r.yaml'}: ")


def test_a_run_is_bound_to_the_commit_of_its_first_start(tmp_path, hub):
    answers, asked = hub
    answers["dataset", "org/rows", None] = OLD
    first = plan(tmp_path, hub_recipe())
    assert first.cells[0].nodes["pool"].identity["sources"][0]["revision"] == OLD
    assert json.loads((tmp_path / "runs" / "tiny" / "revisions.json").read_text()) == {"dataset:org/rows@main": OLD}
    answers["dataset", "org/rows", None] = NEW
    second = plan(tmp_path, hub_recipe())
    assert [node.id for node in second.nodes] == [node.id for node in first.nodes]
    assert asked == [("dataset", "org/rows", None)]


def test_another_run_is_bound_anew(tmp_path, hub):
    answers, _ = hub
    answers["dataset", "org/rows", None] = OLD
    first = plan(tmp_path, hub_recipe())
    answers["dataset", "org/rows", None] = NEW
    second = plan(tmp_path, hub_recipe(name="another"))
    assert second.cells[0].nodes["pool"].identity["sources"][0]["revision"] == NEW
    assert second.cells[0].nodes["pool"].key != first.cells[0].nodes["pool"].key


def test_a_branch_is_bound_separately(tmp_path, hub):
    answers, asked = hub
    answers["model", "org/m", "v2"] = NEW
    answers["model", "org/m", None] = OLD
    embedding = {"model": "org/m", "revision": "v2", "chat_template": "chatml"}
    named = {"embedding": embedding, "sft__model": "org/m", "sft__chat_template": "chatml"}
    nodes = graph(tmp_path, recipe(**named))
    assert nodes["embed"].hashed["model"] == {"hub": "org/m", "revision": NEW}
    assert nodes["sft"].hashed["model"] == {"hub": "org/m", "revision": OLD}
    assert nodes["embed"].runtime["model"] == "org/m"
    assert asked == [("model", "org/m", "v2"), ("model", "org/m", None)]


def test_a_full_commit_is_taken_as_it_is(tmp_path, hub):
    _, asked = hub
    nodes = graph(tmp_path, recipe(embedding={"model": "org/m", "revision": OLD, "chat_template": "chatml"}))
    assert nodes["embed"].hashed["model"] == {"hub": "org/m", "revision": OLD}
    assert asked == []


def test_what_the_hub_does_not_know_is_the_users(tmp_path, hub):
    assert refusal(tmp_path, hub_recipe()) == (
        "pool.dataset: org/rows is not a local path, and the Hub does not answer for dataset org/rows at main. "
        "Check the name and the network, or state revision: with a commit that the local cache holds."
    )
    assert refusal(tmp_path, recipe(sft__model="org/m", sft__revision="v2")).startswith(
        "sft.model: org/m is not a local path, and the Hub does not answer for model org/m at v2."
    )
    assert not (tmp_path / "tiny" / "revisions.json").exists()


@pytest.mark.parametrize("name", ["no/such/file", "rows.jsonl", "./rows", "rows.json.gz", "/nowhere"])
def test_a_file_that_is_not_there_is_no_hub_id(tmp_path, hub, name):
    assert refusal(tmp_path, recipe(pool={"dataset": name})).startswith(f"pool.dataset: {name} does not exist (looked ")
    assert hub[1] == []


def test_the_failing_one_of_several_sources_is_named(tmp_path, hub):
    sources = [{"builtin": "quickstart", "rows": 3}, {"dataset": "none.jsonl"}]
    assert refusal(tmp_path, recipe(pool={"sources": sources})).startswith("pool.sources.1.dataset: none.jsonl")


def test_a_folder_that_is_no_model_is_refused(tmp_path, hub):
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path, recipe(sft__model=str(tmp_path / "empty"))) == (
        f"sft.model: {tmp_path / 'empty'} is a folder without config.json: not a transformers model. "
        "Name the folder that holds it."
    )
    assert refusal(tmp_path, recipe(sft__model="../m/n")).startswith("sft.model: ../m/n is neither a folder (looked in")


def a_checkpoint(folder):
    """A model's files, and the trainer's state."""
    (folder / "global_step4").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    for name in ("trainer_state.json", "optimizer.pt", "complete.json", "global_step4/rank_1.pt"):
        (folder / name).write_text("before")
    return folder


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "complete.json", "global_step4/rank_1.pt"])
def test_the_state_of_a_trainer_is_no_part_of_a_checkpoint_as_a_model(tmp_path, name):
    folder = a_checkpoint(tmp_path / "checkpoint-4")
    keys = [graph(tmp_path, recipe(sft__model=str(folder)))["sft"].key]
    (folder / name).write_text("another")
    keys.append(graph(tmp_path, recipe(sft__model=str(folder)))["sft"].key)
    assert keys[0] == keys[1]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_the_model_in_a_checkpoint_is_what_it_counts_as(tmp_path, name):
    folder = a_checkpoint(tmp_path / "checkpoint-4")
    keys = [graph(tmp_path, recipe(sft__model=str(folder)))["sft"].key]
    (folder / name).write_text('{"another": 1}')
    keys.append(graph(tmp_path, recipe(sft__model=str(folder)))["sft"].key)
    assert keys[0] != keys[1]


def test_any_file_of_another_model_folder_counts(tmp_path):
    """As it did before checkpoints were told apart."""
    folder = a_checkpoint(tmp_path / "model")
    (folder / "trainer_state.json").unlink()
    assert graph(tmp_path, recipe(sft__model=str(folder)))["sft"].hashed["model"] == {
        "content": ContentHashes(tmp_path / "hashes.json").of(folder)
    }


def test_a_checkpoint_without_a_model_is_refused(tmp_path):
    folder = a_checkpoint(tmp_path / "checkpoint-4")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = refusal(tmp_path, recipe(sft__model=str(folder)))
    assert said.startswith(f"sft.model: {folder} is a checkpoint without a model in safetensors")


def test_an_unknown_template_names_the_known_ones(tmp_path):
    assert refusal(tmp_path, recipe(sft__chat_template="vicuna")) == (
        "sft.chat_template: vicuna is unknown; allowed: chatml, llama2, llama3, mistral_instruct, vicuna_v1.1, zephyr, "
        "tokenizer (the model's own), or a .jinja file."
    )
    (tmp_path / "template.txt").write_text("{{ x }}")
    assert "is unknown" in refusal(tmp_path, recipe(embedding__chat_template=str(tmp_path / "template.txt")))


@pytest.mark.parametrize("place", ["sft", "base.pretrain", "scorers.quality", "scorers.quality.train", "embedding"])
def test_an_unknown_launch_is_located(tmp_path, place):
    data = recipe(**{f"{place.replace('.', '__')}__launch": "zero7"})
    assert refusal(tmp_path, data).startswith(f"{place}.launch: zero7 is unknown; allowed: cpu, cpu_ddp")


def test_auto_dtype_follows_the_launch(tmp_path):
    resolver = Inputs(tmp_path, tmp_path, tmp_path / "r.yaml")
    on = {
        use_cpu: {"config_file": "x", "num_processes": 1, "distributed_type": "NO", "use_cpu": use_cpu}
        for use_cpu in (True, False)
    }
    assert [resolver.dtype("auto", on[cpu]) for cpu in (True, False)] == ["float32", "bfloat16"]
    assert resolver.dtype("bfloat16", on[True]) == "bfloat16"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hub cache that knows one branch of one dataset; the Hub itself refuses every connection."""
    from huggingface_hub import constants

    refs = tmp_path / "cache" / "datasets--org--rows" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(OLD + "\n")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    return constants


def test_offline_the_local_cache_answers(cache):
    assert resolve_commit("dataset", "org/rows", None) == OLD
    assert resolve_commit("dataset", "org/rows", "v2") is None
    assert resolve_commit("model", "org/rows", None) is None


def test_without_a_network_the_local_cache_answers(cache, monkeypatch):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(cache, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(cache, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert resolve_commit("dataset", "org/rows", None) == OLD
        assert resolve_commit("dataset", "org/other", None) is None


@pytest.mark.parametrize("name", ["a--b/c", "a/b."])
def test_a_name_that_the_hub_client_refuses_is_not_known(cache, monkeypatch, name):
    monkeypatch.setattr(cache, "HF_HUB_OFFLINE", False)
    with pytest.raises(NotOnHub, match=f"the Hub has no model {re.escape(name)} at main"):
        resolve_commit("model", name, None)

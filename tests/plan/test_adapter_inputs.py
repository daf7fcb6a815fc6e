"""A folder with an adapter where a recipe names a model."""

import json
import shutil

import pytest
from tiny_recipe import graph, no_gpus, recipe  # noqa: F401

from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("no_gpus")
COMMIT = "a" * 40


def make_base(folder, content="base"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content)
    return folder


def make_adapter(folder, base, **changes):
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_text("adapter")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture
def adapter(tmp_path):
    return make_adapter(tmp_path / "adapter", make_base(tmp_path / "whole"))


def refusal(folder, data):
    with pytest.raises(UserError) as caught:
        graph(folder, data)
    return str(caught.value).removeprefix(f"{folder / 'r.yaml'}: ")


def with_scorer(model):
    data = recipe(embedding__model=str(model))
    data["scorers"]["quality"] = {"model": str(model)}
    return data


def test_scorers_and_the_embedding_may_be_adapters(tmp_path, adapter):
    nodes = graph(tmp_path, with_scorer(adapter))
    for label in ("score.quality", "embed"):
        identity = nodes[label].hashed["model"]
        assert set(identity) == {"content", "base"} and set(identity["base"]) == {"content"}
        assert nodes[label].runtime["model"] == str(adapter)


def test_the_key_follows_the_adapter_and_its_base(tmp_path, adapter):
    def key():
        return graph(tmp_path, with_scorer(adapter))["embed"].key

    keys = [key(), key()]
    (tmp_path / "whole" / "model.safetensors").write_text("another base")
    keys.append(key())
    (adapter / "adapter_model.safetensors").write_text("another adapter")
    keys.append(key())
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_a_base_on_the_hub_counts_by_its_commit(tmp_path):
    adapter = make_adapter(tmp_path / "a", "org/base", revision=COMMIT)
    identity = graph(tmp_path, with_scorer(adapter))["embed"].identity["model"]
    assert identity["base"] == {"hub": "org/base", "revision": COMMIT}
    shutil.rmtree(adapter)
    make_adapter(adapter, "org/base", revision="main")
    assert refusal(tmp_path, recipe(embedding__model=str(adapter))) == (
        f"embedding.model: {adapter / 'adapter_config.json'}: revision is 'main'; write the commit (40 digits) of the "
        "base org/base on the Hub there, so that the adapter always finds the same base."
    )


@pytest.mark.parametrize("section", ["sft", "scorers.quality.train"])
def test_a_training_does_not_start_from_an_adapter(tmp_path, adapter, section):
    data = recipe(**{f"{section.replace('.', '__')}__model": str(adapter)})
    assert refusal(tmp_path, data) == (
        f"{section}.model: {adapter} is an adapter, and a training starts from a whole model. Merge it into its base "
        "first: merge_adapter: true where it is trained, or peft's merge_and_unload."
    )


def test_dpo_does_not_start_from_an_adapter(tmp_path, adapter):
    dpo = {"model": str(adapter), "global_batch_size": 8}
    dpo["preferences"] = {"builtin": "quickstart_preferences", "rows": 8}
    assert "dpo.model: " in (message := refusal(tmp_path, recipe("sft", "evaluate", dpo=dpo)))
    assert "a training starts from a whole model" in message


def test_an_adapter_without_a_tokenizer_or_a_base_is_refused(tmp_path, adapter):
    (adapter / "tokenizer_config.json").unlink()
    assert refusal(tmp_path, with_scorer(adapter)).endswith("has no tokenizer; copy its base's tokenizer files there.")
    (adapter / "tokenizer_config.json").write_text("{}")
    shutil.rmtree(tmp_path / "whole")
    message = refusal(tmp_path, recipe(embedding__model=str(adapter)))
    assert (
        message.startswith("embedding.model: ") and f"the adapter's base {tmp_path / 'whole'} does not exist" in message
    )

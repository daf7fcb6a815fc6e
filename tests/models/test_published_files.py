import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from deita_train.models.published_files import finish_model_folder, num_parameters, unexpected_files
from deita_train.training.miniature import train_tokenizer

OWN_TEMPLATE = "{{ messages[0]['content'] }}"


@pytest.fixture
def tokenizer_dir(tmp_path):
    folder = tmp_path / "tokenizer"
    train_tokenizer(["some text"], 300, OWN_TEMPLATE, folder)
    (folder / "README.md").write_text("not copied")
    return folder


@pytest.fixture
def model_dir(tmp_path):
    """What a trainer leaves: a model, and beside it what must not be published."""
    folder = tmp_path / "model"
    config = LlamaConfig(
        vocab_size=300, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("training_args.bin", "optimizer.pt", "modeling_own.py", "README.md", "tokenizer.model"):
        (folder / name).write_text("left over")
    (folder / "tokenizer.json").write_text('{"saved": "again"}')
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "rng_state.pth").write_bytes(b"x")
    return folder


MODEL = {"config.json", "generation_config.json", "model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_unexpected_files_are_named_in_order(model_dir):
    assert unexpected_files(model_dir) == [
        "README.md", "checkpoint-3", "modeling_own.py", "optimizer.pt", "training_args.bin",
    ]  # fmt: skip


def test_only_model_tokenizer_and_template_remain(model_dir, tokenizer_dir):
    weights = (model_dir / "model.safetensors").read_bytes()
    finish_model_folder(model_dir, tokenizer_dir, "the run's {{ messages }}")
    assert names(model_dir) == MODEL | TOKENIZER | {"chat_template.jinja"}
    assert unexpected_files(model_dir) == []
    assert (model_dir / "model.safetensors").read_bytes() == weights
    assert (model_dir / "tokenizer.json").read_bytes() == (tokenizer_dir / "tokenizer.json").read_bytes()
    assert (model_dir / "chat_template.jinja").read_text() == "the run's {{ messages }}"


@pytest.mark.parametrize("stale", [OWN_TEMPLATE, [{"name": "default", "template": OWN_TEMPLATE}], None])
def test_the_template_is_the_same_wherever_a_reader_may_look(model_dir, tokenizer_dir, stale):
    path = tokenizer_dir / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "model_max_length": 77, "legacy": True}
    path.write_text(json.dumps({**config, "chat_template": stale} if stale else config))
    finish_model_folder(model_dir, tokenizer_dir, "the run's {{ messages }}")
    assert (model_dir / "chat_template.jinja").read_text() == "the run's {{ messages }}"
    left = json.loads((model_dir / "tokenizer_config.json").read_text())
    assert left == {**config, "chat_template": "the run's {{ messages }}"}


def test_without_a_template_the_tokenizers_own_stays(model_dir, tokenizer_dir):
    finish_model_folder(model_dir, tokenizer_dir, None)
    assert (model_dir / "chat_template.jinja").read_text() == OWN_TEMPLATE
    (tokenizer_dir / "chat_template.jinja").unlink()
    finish_model_folder(model_dir, tokenizer_dir, None)
    assert names(model_dir) == MODEL | TOKENIZER


def test_the_folder_loads_with_plain_transformers_and_the_runs_template_wins(model_dir, tokenizer_dir):
    # Some tokenizers hold a template of their own inside tokenizer_config.json.
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": OWN_TEMPLATE}))
    finish_model_folder(model_dir, tokenizer_dir, "the run's {{ messages[0]['content'] }}")
    loaded = AutoTokenizer.from_pretrained(model_dir)
    assert loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "the run's x"
    assert loaded("some text")["input_ids"] == AutoTokenizer.from_pretrained(tokenizer_dir)("some text")["input_ids"]
    assert AutoModelForCausalLM.from_pretrained(model_dir)(torch.tensor([[1, 2]])).logits.shape == (1, 2, 300)


def test_sharded_weights_stay(model_dir, tokenizer_dir):
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00001.safetensors")
    (model_dir / "model.safetensors.index.json").write_text("{}")
    finish_model_folder(model_dir, tokenizer_dir, OWN_TEMPLATE)
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json"} < names(model_dir)


def test_of_an_adapter_only_its_own_files_stay(tmp_path, tokenizer_dir):
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors", "README.md"):
        (folder / name).write_text("{}")
    assert unexpected_files(folder) == ["README.md", "config.json", "model.safetensors"]
    finish_model_folder(folder, tokenizer_dir, "the run's {{ messages }}")
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    assert names(folder) == adapter | TOKENIZER | {"chat_template.jinja"}
    assert unexpected_files(folder) == []


def test_num_parameters_by_hand(model_dir, tmp_path):
    # Embedding and head 300 x 8 each; attention q 8x8, k and v 8x4, o 8x8; MLP three times 8x12; three norms of 8.
    assert num_parameters(model_dir) == 2 * 2400 + (64 + 32 + 32 + 64) + 288 + 24
    shards = tmp_path / "shards"
    shards.mkdir()
    save_file({"a": np.zeros((3, 4)), "scalar": np.zeros(())}, shards / "1.safetensors")
    save_file({"b": np.zeros(5, dtype=np.float16)}, shards / "2.safetensors")
    assert num_parameters(shards) == 12 + 1 + 5


def test_weights_that_a_folder_holds_twice_count_once(model_dir, tmp_path):
    expected = num_parameters(model_dir)
    save_file({"all": np.zeros(1000)}, model_dir / "consolidated.safetensors")
    assert num_parameters(model_dir) == expected
    save_file({"a": np.zeros(7)}, model_dir / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(8), "c": np.zeros(9)}, model_dir / "model-00002-of-00002.safetensors")
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    weight_map = {"a": shards[0], "b": shards[1], "c": shards[1]}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert num_parameters(model_dir) == 7 + 8 + 9

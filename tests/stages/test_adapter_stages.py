"""The training stages with an adapter: what they leave, merge, check and refuse."""

import json
import shutil
from importlib.resources import files

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.forward import load_model
from deita_train.stages.checks import check_artefact, content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.training import adapter_merge as adapters
from deita_train.stages.training import sft, train_scorer
from deita_train.stages.training.adapter_merge import base_name
from deita_train.training.miniature import make_model, train_tokenizer

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
TRAINER = {"learning_rate": 1e-2, "num_train_epochs": 1, "lr_scheduler_type": "constant", "max_length": 2048}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
WHOLE = {"config.json", "generation_config.json", "model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
IDS = torch.tensor([[1, 30, 60, 90, 120]])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A base and a table of conversations, as artefacts that a stage reads."""
    folder = tmp_path_factory.mktemp("made") / "store"
    texts = [f"{n} and {n} make {2 * n}" for n in range(10)]
    tokenizer = train_tokenizer([*texts, "123456"], 400, TEMPLATE, folder / "base-1" / "model")
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 1024}
    make_model(tokenizer, **shape, seed=3, folder=folder / "base-1" / "model")
    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": t}] for n, t in enumerate(texts)]
    table = datasets.Dataset.from_dict({"id": [str(n) for n in range(10)], "messages": turns})
    table.save_to_disk(str(folder / "pool-1" / "data"))
    (folder / "pool-1" / "manifest.json").write_text(json.dumps({"rows_out": 10}))
    return folder


def context(kind, store, work_dir, **config):
    parents = {"model": store / "base-1", **({"data": store / "pool-1"} if kind == "sft" else {})}
    common = {"global_batch_size": 5, "seed": 7, "trainer": TRAINER, "peft": {"r": 4}, "merge_adapter": False}
    (work_dir / "prepared").mkdir(parents=True)
    settings = {
        "trainer": {},
        "launch": LAUNCH,
        "packing": False,
        "checkpoint_minutes": 30.0,
        "data": {},
        "heldout": {},
    }
    return StageContext(kind, kind, {**common, **config}, settings, parents, work_dir, 0, 1, Progress(None))


def carry_out(module, made):
    """Everything up to publishing; the metrics."""
    module.prepare(made)
    result = module.run(made)
    left = {name: getattr(result, name) for name in ("rows_in", "rows_out", "drops")}
    left["metrics"] = {**result.metrics, **module.finish(made)}
    check_artefact(made, left)
    return left["metrics"]


def run_sft(store, work_dir, **config):
    made = context("sft", store, work_dir, chat_template=TEMPLATE, **config)
    return carry_out(sft, made), made


@pytest.fixture(scope="module")
def adapter(store, tmp_path_factory):
    return run_sft(store, tmp_path_factory.mktemp("work") / "adapter")


@pytest.fixture(scope="module")
def merged(store, tmp_path_factory):
    return run_sft(store, tmp_path_factory.mktemp("work") / "merged", merge_adapter=True)


def names(folder):
    return {path.name for path in folder.iterdir()}


def logits(model):
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def test_an_adapter_is_published_with_its_tokenizer_and_nothing_else(adapter, store):
    metrics, made = adapter
    assert names(made.model_dir) == ADAPTER | TOKENIZER
    config = json.loads((made.model_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(store / "base-1" / "model")
    assert (made.model_dir / "chat_template.jinja").read_text() == TEMPLATE
    assert load_tokenizer(str(made.model_dir))("1 and 1")["input_ids"][0] == 0  # the beginning of the sequence
    # Rank 4, per layer q and v 32 -> 32.
    assert metrics["parameters"] == 2 * 2 * 4 * 64
    # Embedding and head 400 x 32 each; per layer four times 32 x 32, three times 32 x 96, two norms; the last norm.
    vocabulary = len(load_tokenizer(str(made.model_dir)))
    assert metrics["frozen_parameters"] == 2 * vocabulary * 32 + 2 * (4 * 1024 + 3 * 32 * 96 + 64) + 32


def test_a_merged_model_is_published_whole(adapter, merged):
    metrics, made = merged
    assert names(made.model_dir) == WHOLE | TOKENIZER
    assert 0 < metrics["merge_difference"] < 1e-5
    assert {metrics[name] == adapter[0][name] for name in ("parameters", "frozen_parameters", "history")} == {True}
    whole = AutoModelForCausalLM.from_pretrained(made.model_dir)
    assert whole.dtype == torch.float32
    adapted = load_model(str(adapter[1].model_dir), "float32", torch.device("cpu"), head=True)
    torch.testing.assert_close(logits(whole), logits(adapted), atol=1e-5, rtol=0)


def test_a_merged_model_stops_where_its_tokenizer_ends_too(store, tmp_path):
    """As a model that is trained whole: the template ends answers with the tokenizer's end of sequence."""
    shutil.copytree(store / "base-1", tmp_path / "base-1")
    shutil.copytree(store / "pool-1", tmp_path / "pool-1")
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / "base-1" / "model" / name
        file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": 7}))
    _, made = run_sft(tmp_path, tmp_path / "work", merge_adapter=True)
    own = load_tokenizer(str(made.model_dir)).eos_token_id
    assert json.loads((made.model_dir / "generation_config.json").read_text())["eos_token_id"] == [7, own]
    assert json.loads((made.model_dir / "config.json").read_text())["eos_token_id"] == 7


def test_plain_transformers_loads_both(adapter, merged):
    expected = logits(load_model(str(adapter[1].model_dir), "float32", torch.device("cpu"), head=True))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(adapter[1].model_dir)), expected)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(merged[1].model_dir)), expected, atol=1e-5, rtol=0
    )


def test_merging_again_after_a_kill_gives_the_same(merged):
    """A publishing that was killed is begun again: the adapter still waits beside the model."""
    _, made = merged
    before = content_digest(made.work_dir)
    (made.model_dir / "model.safetensors").write_bytes(b"torn")
    sft.finish(made)
    assert content_digest(made.work_dir) == before


def test_the_content_does_not_depend_on_where_the_store_lies(adapter, store, tmp_path):
    shutil.copytree(store, tmp_path / "elsewhere")
    _, made = run_sft(tmp_path / "elsewhere", tmp_path / "work")
    texts = [
        (folder / "model" / "adapter_config.json").read_text() for folder in (adapter[1].work_dir, tmp_path / "work")
    ]
    assert texts[0] != texts[1]
    assert content_digest(made.work_dir) == content_digest(adapter[1].work_dir)


def test_a_scorer_is_merged_before_it_is_measured(store, tmp_path):
    def identity(rows, seed):
        return {"builtin": "quickstart", "rows": rows, "seed": seed, "label": None}

    data = {"dimension": "complexity", "data": identity(20, 1), "heldout": identity(20, 2), "max_length": 1024}
    made = context("train_scorer", store, tmp_path / "work", merge_adapter=True, **data)
    metrics = carry_out(train_scorer, made)
    assert names(made.model_dir) == WHOLE | TOKENIZER
    assert metrics["merge_difference"] < 1e-5
    assert metrics["heldout"]["rows"] == 20 and -1 <= metrics["heldout"]["rank_correlation"] <= 1


def test_a_wrong_adapter_is_refused_before_rows_are_rendered(store, tmp_path):
    made = context("sft", store, tmp_path, chat_template=TEMPLATE, peft={"target_modules": ["nope"]})
    with pytest.raises(UserError, match="The linear layers of LlamaForCausalLM are down_proj"):
        sft.prepare(made)
    assert list(made.prepared_dir.iterdir()) == []


def test_a_tokenizer_that_needs_the_model_s_configuration_wants_a_whole_model(store, tmp_path, monkeypatch):
    def other_ids(source, folder):
        assert (folder / "tokenizer.json").is_file() and not (folder / "config.json").exists()
        raise AssertionError("the saved tokenizer changed the ids of 'x'")

    monkeypatch.setattr(adapters, "check_tokenizer", other_ids)
    with pytest.raises(UserError, match=r"changed the ids of 'x'\)\. State merge_adapter: true\."):
        sft.prepare(context("sft", store, tmp_path / "a", chat_template=TEMPLATE))
    sft.prepare(context("sft", store, tmp_path / "b", chat_template=TEMPLATE, merge_adapter=True))


def test_what_an_adapter_calls_its_base(store, tmp_path):
    made = context("sft", store, tmp_path)
    assert base_name(made) == (str(store / "base-1" / "model"), None)
    hub = {"hub": "org/m", "revision": "a" * 40}
    for identity, expected in ((hub, ("org/m", "a" * 40)), ({"content": "x"}, ("/models/m", None))):
        settings = {**made.runtime, "model": "org/m" if "hub" in identity else "/models/m"}
        other = StageContext("sft", "sft", {"model": identity}, settings, {}, tmp_path, 0, 1, Progress(None))
        assert base_name(other) == expected

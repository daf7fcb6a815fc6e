"""`resize: true`: control tokens and embeddings that a model lacks, added before it is trained."""

import json

import pytest
import torch
from messages import assistant, user
from pass_stages import make_model
from tiny_recipe import graph, no_gpus, recipe  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.commands.validation import validate_data
from deita_train.data.rendering import load_tokenizer
from deita_train.data.shipped_templates import shipped_template
from deita_train.errors import UserError
from deita_train.models.model_limits import Vocabulary, vocabulary
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.resized_model import resized_folder
from deita_train.store.atomic_io import write_json_atomically

pytestmark = pytest.mark.usefixtures("no_gpus")
OF_SFT = {"section": "sft", "is_swept": False}
CHATML = ["<|im_start|>", "<|im_end|>"]


@pytest.fixture
def folder(tmp_path):
    make_model(tmp_path / "model")
    return tmp_path / "model"


def embeddings(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def test_new_tokens_begin_at_the_mean_and_the_old_ones_stay(folder, tmp_path):
    resized = resized_folder(folder, tmp_path / "resized", shipped_template("chatml"), OF_SFT)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (folder, resized))
    added = after.convert_tokens_to_ids(CHATML)
    assert added == [len(before), len(before) + 1]
    assert after("a <|im_start|>b")["input_ids"] == [*before("a ")["input_ids"], added[0], *plain(before, "b")]
    assert load_tokenizer(str(resized), shipped_template("chatml")).chat_template == shipped_template("chatml")
    for old, new in zip(embeddings(folder), embeddings(resized), strict=True):
        assert new.shape[0] == old.shape[0] + 2 == len(after)
        assert torch.equal(new[:-2], old)
        torch.testing.assert_close(new[-2:], old.mean(dim=0).expand(2, -1))
    assert vocabulary(resized) == Vocabulary(len(after), len(after))


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_what_a_tokenizer_has_beyond_the_model_is_added_to_the_model(folder, tmp_path):
    add_pad(folder)
    assert not vocabulary(folder).fits
    resized = resized_folder(folder, tmp_path / "resized", shipped_template("vicuna_v1.1"), OF_SFT)
    assert vocabulary(resized).fits and vocabulary(resized).tokens == vocabulary(folder).tokens
    assert (resized / "tokenizer.json").read_bytes() != b""
    assert resized_folder(folder, resized, None, OF_SFT) == resized, "made once"


def add_pad(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)


def test_rows_that_a_model_has_beyond_its_tokens_are_taken_first(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = vocabulary(folder).tokens
    model.resize_token_embeddings(tokens + 8)
    model.save_pretrained(folder)
    resized = resized_folder(folder, tmp_path / "resized", shipped_template("chatml"), OF_SFT)
    for old, new in zip(embeddings(folder), embeddings(resized), strict=True):
        assert new.shape == old.shape
        torch.testing.assert_close(new[tokens : tokens + 2], old[:tokens].mean(dim=0).expand(2, -1))


def test_where_nothing_is_missing_it_would_have_no_effect(folder, tmp_path):
    with pytest.raises(UserError, match=r"^sft\.resize: true would have no effect: the model of .* has a row"):
        resized_folder(folder, tmp_path / "resized", shipped_template("vicuna_v1.1"), OF_SFT)
    assert not (tmp_path / "resized").exists()
    swept = {"section": "sft", "is_swept": True}
    assert resized_folder(folder, tmp_path / "resized", shipped_template("vicuna_v1.1"), swept) == folder


def test_a_model_without_a_row_for_each_token_is_refused_with_the_way_out(folder, tmp_path):
    add_pad(folder)
    with pytest.raises(UserError, match=r"sft\.model: the tokenizer of .* has 343 tokens and the model 342 embeddings"):
        graph(tmp_path, recipe(sft__model=str(folder)))
    with pytest.raises(UserError, match=r"embedding\.model: .* Resize it once and save it"):
        graph(tmp_path, recipe(embedding={"model": str(folder)}))
    assert graph(tmp_path, recipe(sft__model=str(folder), sft__resize=True))["sft"].identity["resize"]


def test_a_stage_knows_the_section_that_resizes_its_model(folder, tmp_path):
    made = graph(tmp_path, recipe(sft__model=str(folder), sft__resize=True, scorers__quality__train__resize=True))
    found = {label: node.runtime["resizing"] for label, node in made.items() if "resizing" in node.runtime}
    assert found == {
        "train_scorer.quality": {"section": "scorers.quality.train", "is_swept": False},
        "sft": OF_SFT,
        "evaluate.base": OF_SFT,
    }


def swept_over_templates(folder, data):
    path = folder / "swept.yaml"
    longer = {**data["sft"], "trainer": {"max_steps": 1, "max_length": 512}}
    write_json_atomically(path, {**data, "sft": longer, "sweep": {"sft.chat_template": ["chatml", "vicuna_v1.1"]}})
    return validate_data(make_plan(path, (), folder / "runs"))


def test_a_whole_recipe_with_chatml_on_a_model_without_its_tokens(folder, tmp_path):
    rows = [{"messages": [user(f"Say {number}"), assistant(f"{number}.")]} for number in range(6)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {
        "name": "resized",
        "sft": {
            "data": {"dataset": str(tmp_path / "pool.jsonl")},
            "model": str(folder),
            "chat_template": "chatml",
            "resize": True,
            "global_batch_size": 2,
            "trainer": {"max_steps": 2, "max_length": 64, "learning_rate": 1e-3},
        },
        "evaluate": {"heldout": {"dataset": str(tmp_path / "pool.jsonl")}},
    }
    write_json_atomically(tmp_path / "recipe.yaml", data)
    made = make_plan(tmp_path / "recipe.yaml", (), tmp_path / "runs")
    assert validate_data(made).problems == []
    found = swept_over_templates(tmp_path, data)
    assert found.problems == []
    idle = "resize: true changes nothing in this cell of the sweep: the model lacks no token"
    assert [line.partition(": ")[0] for line in found.lines if idle in line] == ["sft", "evaluate.base"]
    for node in made.nodes:
        run_stage(made.loaded.path, [], tmp_path / "runs", node.id)
    published = made.store.path(made.cells[0].nodes["sft"].id) / "model"
    assert vocabulary(published).fits and vocabulary(published).tokens == vocabulary(folder).tokens + 2
    tokenizer = AutoTokenizer.from_pretrained(published)
    stops = AutoModelForCausalLM.from_pretrained(published).generation_config.eos_token_id
    assert tokenizer.convert_ids_to_tokens(stops)[-1] == "<|im_end|>"
    write_json_atomically(tmp_path / "recipe.yaml", {**data, "sft": {**data["sft"], "resize": False}})
    refused = validate_data(make_plan(tmp_path / "recipe.yaml", (), tmp_path / "runs")).problems
    assert any("writes <|im_start|>, <|im_end|>, which the tokenizer" in problem for problem in refused)

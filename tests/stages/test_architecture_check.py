"""Architectures that a stage cannot use rightly are refused by `validate` and before a training, by name."""

import json

import pytest
import torch
from messages import assistant, user
from model_families import FAMILIES, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.commands.validation import validate_data
from deita_train.errors import UserError
from deita_train.inference import architecture
from deita_train.models.tiny_copy import NotCopied
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage

SHAPE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = [{"messages": [user("How are you?"), assistant(f"Fine, {number}.")]} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def write_model(folder, name, **changes):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"], folder / "model")
    torch.manual_seed(1)
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), **SHAPE, **tokens, **changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")


def planned(folder, **sections):
    data = {"dataset": str(folder / "rows.jsonl")}
    model = str(folder / "model")
    sft = {"model": model, "data": data, "global_batch_size": 2, "trainer": {"max_steps": 1}}
    recipe = {"name": "architectures", "sft": sft, "evaluate": {"heldout": data}}
    recipe["sft"] |= sections.pop("sft", {})
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({**recipe, **sections}))
    return make_plan(path, (), folder / "runs")


def sft_error(made):
    """What stops the training, once its data is made."""
    of = made.cells[0].nodes
    run_stage(made.loaded.path, [], made.runs_dir, of["sft_data"].id)
    with pytest.raises(UserError) as caught:
        run_stage(made.loaded.path, [], made.runs_dir, of["sft"].id)
    return str(caught.value)


LEAKS = "sft.packing: in BloomForCausalLM the conversations of a packed row see each other (tried on a tiny copy of it)"


def test_packing_where_conversations_see_each_other(folder):
    write_model(folder, "bloom")
    made = planned(folder, sft={"packing": True})
    (problem,) = validate_data(made).problems
    assert problem.startswith(LEAKS) and problem.endswith("leave packing: out.")
    assert sft_error(made) == problem


def test_the_same_model_without_packing_and_another_with_it(folder):
    write_model(folder, "bloom")
    assert validate_data(planned(folder)).problems == []
    write_model(folder, "llama")
    assert validate_data(planned(folder, sft={"packing": True})).problems == []


def test_logits_that_no_configuration_explains(folder):
    write_model(folder, "recurrent_gemma", num_key_value_heads=1, lru_width=16, attention_window_size=8)
    made = planned(folder)
    (problem,) = validate_data(made).problems
    assert problem.startswith("sft: RecurrentGemmaForCausalLM does something to its logits after the output head")
    assert problem == f"{sft_error(made)} The same holds for evaluate."


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("t5", {}, "transformers has no causal language model of the type t5; choose one that AutoModelForCausalLM"),
        ("mistral3", {}, "transformers has no causal language model of the type mistral3; "),
        (
            "bart",
            {"d_model": 16, "decoder_layers": 1, "encoder_layers": 1},
            "bart is an encoder with a decoder; choose",
        ),
    ],
)
def test_what_is_no_causal_language_model(folder, name, changes, says):
    write_model(folder, "llama")
    AutoConfig.for_model(name, **changes).save_pretrained(folder / "model")
    made = planned(folder)
    (problem,) = validate_data(made).problems
    assert problem.startswith(f"sft: {says}")
    assert problem == f"{sft_error(made)} The same holds for evaluate."


def test_what_could_not_be_tried_is_told_and_refused_only_for_packing(folder, monkeypatch):
    def no_copy(config):
        raise NotCopied("sizes do not go together")

    monkeypatch.setattr(architecture, "tiny_copy", no_copy)
    architecture._tried.cache_clear()
    write_model(folder, "llama", rms_norm_eps=1e-3)
    found = validate_data(planned(folder))
    assert found.problems == []
    line = (
        "LlamaForCausalLM was not tried on a tiny copy (sizes do not go together); its logits are checked once it is "
        "loaded"
    )
    assert [f"{label}: {line}" for label in ("sft", "evaluate.base")] == [
        said for said in found.lines if "tiny copy" in said
    ]
    (problem,) = validate_data(planned(folder, sft={"packing": True})).problems
    assert problem == (
        "sft.packing: no tiny copy of LlamaForCausalLM could be made to try whether packed conversations see each "
        "other (sizes do not go together); leave packing: out."
    )
    made = planned(folder)
    for node in made.nodes[:2]:
        run_stage(made.loaded.path, [], folder / "runs", node.id)
    assert made.store.has(made.cells[0].nodes["sft"].id)
    architecture._tried.cache_clear()

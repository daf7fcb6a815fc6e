"""A model with code of its own: a LLaMA under another name, whose files write down that they were executed."""

import json

import pytest
import torch
from pass_stages import carry_out, conversations, make_model, pass_context
from transformers import AutoModelForCausalLM

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.forward import load_model
from deita_train.models import remote_code
from deita_train.models.model_folder import check_model_folder
from deita_train.models.model_shape import load_config
from deita_train.stages.inference import embed

CPU = torch.device("cpu")
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

Path({mark!r}).write_text("executed")

class OwnConfig(LlamaConfig):
    model_type = "own_architecture"

class OwnModel(LlamaModel):
    config_class = OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
CLASSES = {
    "AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel",
    "AutoModelForCausalLM": "own_code.OwnForCausalLM",
}  # fmt: skip


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The model's folder, the mark that its code leaves, and the logits that a plain LLaMA with its weights gives."""
    monkeypatch.setattr(remote_code, "_reported", set())
    folder, mark = tmp_path / "model", tmp_path / "mark"
    make_model(folder)
    ids = torch.arange(3, 40)[None]
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    (folder / "own_code.py").write_text(CODE.format(mark=str(mark)))
    edit(folder / "config.json", model_type="own_architecture", architectures=["OwnForCausalLM"], auto_map=CLASSES)
    return folder, mark, ids, expected


LOADS = {
    "folder": check_model_folder,
    "configuration": load_config,
    "model": lambda folder, trust: load_model(str(folder), "float32", CPU, head=True, trust_code=trust),
    "trunk": lambda folder, trust: load_model(str(folder), "float32", CPU, head=False, trust_code=trust),
}


@pytest.mark.parametrize("what", LOADS)
def test_code_is_executed_where_it_is_trusted_and_nowhere_else(own, what, capsys):
    folder, mark, *_ = own
    with pytest.raises(UserError, match=r"brings its own Python code.*trust_remote_code: at the top of the recipe"):
        LOADS[what](folder, False)
    assert not mark.exists() and "executing" not in capsys.readouterr().out
    LOADS[what](folder, True)
    assert mark.read_text() == "executed"
    assert capsys.readouterr().out.splitlines()[0] == (
        f"executing Python code of {folder} (own_code.py): the recipe trusts it"
    )


def test_a_trusted_model_gives_its_own_numbers(own):
    folder, _, ids, expected = own
    model = load_model(str(folder), "float32", CPU, head=True, trust_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    assert torch.equal(model(ids).logits, expected)


def test_a_tokenizers_code_is_refused_like_a_models(own):
    folder, mark, *_ = own
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own_code.OwnTokenizer"]},
         tokenizer_class="OwnTokenizer")  # fmt: skip
    with pytest.raises(UserError, match="brings its own Python code"):
        load_tokenizer(str(folder))
    assert not mark.exists()
    assert type(load_tokenizer(str(folder), trust_code=True)).__name__ == "OwnTokenizer"


def test_code_of_another_repository_is_refused_though_trusted(own):
    folder, mark, *_ = own
    edit(folder / "config.json", auto_map=CLASSES | {"AutoConfig": "org/code--own_code.OwnConfig"})
    with pytest.raises(UserError, match=r"config.json: the model's code is in another repository \(org/code\)"):
        check_model_folder(folder, True)
    assert not mark.exists()


def test_a_stage_hears_from_its_configuration(own, tmp_path):
    folder, mark, *_ = own
    context = pass_context("embed", tmp_path, conversations(4))
    del context.parents["model"]
    context.runtime["model"], context.identity["model"] = str(folder), {"content": "c" * 64}
    with pytest.raises(UserError, match="brings its own Python code"):
        embed.prepare(context)
    assert not mark.exists()
    context.identity["model"]["trust_remote_code"] = True
    table, _ = carry_out(embed, context)
    assert len(table["embedding"]) == 4 and mark.exists()

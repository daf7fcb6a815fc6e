"""The arithmetic of docs/scale.md is what benchmarks/scale.py computes, with the weights of the paper's models."""

import importlib.util
import sys

import torch
from smoke_run import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.inference.speed import flops_per_token


def scale():
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_table_in_the_docs_is_the_printed_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    scale().main()
    table = capsys.readouterr().out
    assert table.count("\n") == 17 and table in (ROOT / "docs" / "scale.md").read_text()


def test_the_operations_are_those_that_the_passes_count():
    shape = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape))
    # Beside the matrices the passes count the weights of the norms.
    assert 0 <= flops_per_token(model) - 2 * scale().WEIGHTS < 1e-4 * flops_per_token(model)


def test_an_hour_of_a_pass_is_computed_as_by_hand():
    # 1e12 tokens of 2 x 12.687e9 operations at 1e18 a second: 25,375 s.
    assert round(scale().pass_hours(1e12, 1e18) * 3600) == round(2 * (4 * 5120**2 + 3 * 5120 * 13824) * 40 / 1e6)

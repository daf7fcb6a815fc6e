"""The rules by which numbers are made small, and what of them each must leave alone."""

import pytest
from rehearsal_parts import ADDRESS
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.run.rehearsal.account import rehearsed_stages, sections_of
from deita_train.run.rehearsal.launches import put_twins
from deita_train.run.rehearsal.rewriting import Rewriter
from deita_train.run.rehearsal.shrinking import shrink

pytestmark = pytest.mark.usefixtures("no_gpus")
QUANTIZED = {
    "model": "m",
    "launch": "single_gpu",
    "global_batch_size": 32,
    "peft": {"r": 16, "target_modules": "all-linear"},
    "quantization": "nf4",
    "trainer": {
        "bf16": True, "tf32": True, "max_steps": 500, "per_device_train_batch_size": 4, "optim": "adamw_torch",
        "model_init_kwargs": {"attn_implementation": "flash_attention_2", "rope_theta": 1e6},
    },
}  # fmt: skip


def made_small(data, *, hub_answers=False):
    recipe = Rewriter(data)
    put_twins(recipe)
    shrink(recipe, ADDRESS, hub_answers=hub_answers)
    return recipe.data, {one.path: (one.real, one.stand_in) for one in recipe.replacements}


def test_what_needs_a_gpu_is_left_out_and_the_rest_of_a_training_stays():
    small, told = made_small({"sft": QUANTIZED})
    assert small["sft"] == {
        "model": "m", "launch": "cpu", "global_batch_size": 8, "peft": QUANTIZED["peft"], "max_refused_share": 0.5,
        "trainer": {
            "max_steps": 4, "per_device_train_batch_size": 2, "optim": "adamw_torch", "max_length": 1024,
            "model_init_kwargs": {"rope_theta": 1e6},
        },
    }  # fmt: skip
    assert told["sft.quantization"] == ("nf4", "no quantization")
    assert told["sft.trainer.max_length"] == ("2,048 by default", "1,024")


@pytest.mark.parametrize(
    ("stated", "launch", "micro", "batch"),
    [
        (512, "zero2", None, 8),
        (6, None, None, 6),
        (7, "ddp", None, 6),
        (1, "zero3", None, 2),
        (512, "ddp", 8, 8),
        (9, None, 2, 8),
    ],
)
def test_a_batch_is_the_largest_up_to_eight_that_ranks_and_micro_batch_divide(stated, launch, micro, batch):
    trainer = {} if micro is None else {"per_device_train_batch_size": micro}
    sft = {
        "model": "m",
        "global_batch_size": stated,
        "trainer": trainer,
        **({} if launch is None else {"launch": launch}),
    }
    assert made_small({"sft": sft})[0]["sft"]["global_batch_size"] == batch


@pytest.mark.parametrize(
    ("budget", "small"),
    [
        (6000, 16),
        (5, 5),
        ({"share": 0.02}, {"share": 0.25}),
        ({"share": 0.5}, {"share": 0.5}),
        ({"tokens": 10**6}, {"tokens": 2000}),
    ],
)
def test_a_budget_keeps_its_form(budget, small):
    select = made_small({"select": {"budget": budget}})[0]["select"]
    assert (select["budget"], select["allow_fewer"], select["threshold"]) == (small, True, 1.5)


def test_a_method_without_a_threshold_gets_none():
    assert made_small({"select": {"method": "random", "budget": 100}})[0]["select"] == {
        "method": "random", "budget": 16, "allow_fewer": True
    }  # fmt: skip
    assert made_small({"select": {"method": "whole_pool"}})[0]["select"] == {"method": "whole_pool"}


def test_an_adapter_in_some_of_many_layers_is_in_every_one_of_a_miniatures():
    """Two sections that share one mapping, as an anchor of YAML makes them, are both told."""
    peft = {"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [30, 31], "layers_pattern": "layers"}
    small, told = made_small({"sft": {"model": "m", "peft": peft}, "dpo": {"peft": peft}})
    for section in ("sft", "dpo"):
        assert small[section]["peft"] == {"r": 2, "target_modules": ["q_proj"]}
        assert told[f"{section}.peft.layers_to_transform"] == ("[30, 31]", "every layer")


def test_endpoints_keep_key_and_price_and_lose_limits_and_address():
    hosted = {
        "base_url": "https://api.example.com/v1", "model": "big", "api_key_env": "KEY", "requests_per_minute": 5,
        "price": {"input": 1.0, "output": 2.0}, "max_cost": 3.0,
    }  # fmt: skip
    rules = {"builtin": "quickstart"}
    small, told = made_small({"llm": {"a": hosted, "b": {"local": "folder"}, "c": rules}})
    kept = {name: hosted[name] for name in ("model", "api_key_env", "price", "max_cost")}
    assert small["llm"] == {
        "a": {**kept, "base_url": ADDRESS}, "b": {"model": "folder", "base_url": ADDRESS}, "c": rules
    }  # fmt: skip
    assert told["llm.a.base_url"] == ("https://api.example.com/v1", "a server on loopback")
    assert told["llm.b.base_url"][1] == "a server on loopback"


def test_tasks_of_the_hub_are_replaced_only_where_it_does_not_answer():
    section = {"evaluate": {"lm_eval": {"tasks": ["open_llm_v1"]}}}
    assert made_small(section)[0]["evaluate"]["lm_eval"] == {"tasks": ["quickstart_choice"], "limit": 2}
    assert made_small(section, hub_answers=True)[0]["evaluate"]["lm_eval"] == {"tasks": ["open_llm_v1"], "limit": 2}
    own = {"evaluate": {"lm_eval": {"tasks": ["mine"], "include": "tasks", "num_fewshot": 3}}}
    assert made_small(own)[0]["evaluate"]["lm_eval"] == {**own["evaluate"]["lm_eval"], "limit": 2}


def test_nothing_is_sent_anywhere():
    small, _ = made_small({"wandb": {}, "report_to": ["trackio", "tensorboard"]})
    assert small == {"wandb": {"mode": "offline"}, "report_to": ["tensorboard"]}
    assert made_small({"report_to": ["trackio"]})[0] == {"report_to": ["none"]}


def test_a_section_that_only_asks_an_endpoint_gets_no_fields_of_models():
    asked = {
        "evaluate": {"llm": "judge", "judged": {"judge": "judge", "questions": {"builtin": "everyday", "rows": 8}}}
    }
    small = made_small(asked)[0]["evaluate"]
    assert set(small) == {"llm", "judged"} and small["judged"]["questions"]["rows"] == 2


def test_every_stage_is_told_what_of_its_own_sections_was_replaced():
    recipe = Rewriter({"dpo": {"preferences": {"dataset": "d", "sample": 100}, "global_batch_size": 64}})
    shrink(recipe, ADDRESS, hub_answers=False)
    stages = {
        stage.label: [one.name for one in stage.replaced]
        for stage in rehearsed_stages(["dpo", "dpo_data"], recipe.replacements)
    }
    assert stages["dpo_data"] == ["sample"]
    assert "global_batch_size" in stages["dpo"] and not any("sample" in name for name in stages["dpo"])
    assert sections_of("train_scorer.quality") == ("scorers.quality.train",)
    assert sections_of("mt_bench.sft") == ("evaluate.mt_bench", "llm")

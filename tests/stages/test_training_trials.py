"""The trainings of a recipe tried before it runs: with their section, on their own model, once for what is the same."""

import json

import pytest
from tiny_recipe import dpo_recipe, no_gpus, plan, recipe  # noqa: F401
from transformers import BloomConfig, MixtralConfig

from deita_train.commands.validation import validate_recipe
from deita_train.stages.training import trial
from deita_train.stages.training.trial import try_trainings
from deita_train.training.trial import TrialProblem, TrialResult

pytestmark = pytest.mark.usefixtures("no_gpus")


def tried(folder, data, *, elsewhere=False):
    return try_trainings(plan(folder, data).nodes, elsewhere=elsewhere)


def sft_of(model, **more):
    """A recipe of one training, from a model outside the run."""
    return {
        "name": "a",
        "sft": {
            "model": str(model),
            "chat_template": "vicuna_v1.1",
            "data": {"builtin": "quickstart", "rows": 20},
            "global_batch_size": 8,
            **more,
        },
    }


@pytest.fixture
def calls(monkeypatch):
    """What would be tried; every trial finds one mistake."""
    seen = []

    def fake(config, settings, **how):
        seen.append((config, settings, how))
        return TrialResult((TrialProblem("trainer.optim", f"no {settings.kind} today."),), "the end was not reached")

    monkeypatch.setattr(trial, "try_training", fake)
    return seen


def test_a_right_recipe_passes(tmp_path):
    found = tried(tmp_path, dpo_recipe(sft__peft={"r": 2}, sft__merge_adapter=True, sft__packing=True))
    assert (found.problems, found.notes) == ([], [])


def test_every_training_is_tried_with_its_section(tmp_path, calls):
    found = tried(tmp_path, dpo_recipe(sft__trainer={"optim": "sgd", "learning_rate": 1e-3}))
    sections = ["base.pretrain", "scorers.complexity.train", "scorers.quality.train", "sft", "dpo"]
    assert found.problems == [
        f"{section}.trainer.optim: no {'dpo' if section == 'dpo' else 'sft'} today." for section in sections
    ]
    assert found.notes[-1] == "dpo: not tried to the end: the end was not reached"
    assert len(calls) == 3, "the pretraining and the scorers are the same to a trial"
    assert [config.hidden_size for config, _, _ in calls] == [64] * 3
    stated = [{**settings.trainer} for _, settings, _ in calls]
    assert stated[:2] == [{"learning_rate": 1e-3, "num_train_epochs": 1}, {"optim": "sgd", "learning_rate": 1e-3}]


def test_a_sweep_over_data_is_one_trial_and_one_over_rates_several(tmp_path, calls):
    tried(tmp_path, recipe("scorers", sweep={"select.budget": [5, 6]}, select__method="random"))
    assert len(calls) == 1, "the pretraining and the cells' SFT are the same to a trial"
    calls.clear()
    tried(tmp_path, recipe("scorers", sweep={"sft.trainer.learning_rate": [1e-3, 1e-4]}, select__method="random"))
    assert len(calls) == 2


def test_settings_are_those_of_the_launch(tmp_path, calls):
    tried(tmp_path, recipe(sft__launch="cpu_ddp", sft__peft={"r": 2}, sft__merge_adapter=True))
    _, settings, how = calls[-1]
    assert (settings.world_size, settings.use_cpu, settings.peft["r"]) == (2, True, 2)
    assert how == {"merge_adapter": True, "elsewhere": False}


def test_a_model_from_outside_is_tried_in_its_own_architecture(tmp_path):
    MixtralConfig(num_hidden_layers=3).save_pretrained(tmp_path / "mixtral")
    trainer = {"router_aux_loss_coef": 0.01, "optim": "paged_adamw_8bit", "per_device_train_batch_size": 2}
    data = sft_of(tmp_path / "mixtral", trainer=trainer)
    (problem,) = tried(tmp_path, data).problems
    assert problem.startswith("sft.trainer.optim: You need to install `bitsandbytes`") and problem.endswith(".")
    assert tried(tmp_path, data, elsewhere=True).problems == []


def test_packing_that_leaks_is_told(tmp_path):
    BloomConfig(hidden_size=32, n_head=2, n_layer=1, vocab_size=64).save_pretrained(tmp_path / "bloom")
    (problem,) = tried(tmp_path, sft_of(tmp_path / "bloom", packing=True)).problems
    assert problem.startswith("sft.packing: in BloomForCausalLM the conversations of a packed row see each other")


def test_a_hub_model_that_is_not_here_yet_is_tried_as_a_small_llama(tmp_path, calls, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file, revision: None)
    found = tried(tmp_path, sft_of("org/model", revision="a" * 40))
    assert found.notes[0] == (
        "sft: tried on a small LLaMA, because the configuration of org/model is not on this machine yet"
    )
    assert calls[0][0] is None


def test_validate_tells_all_mistakes_at_once(tmp_path):
    data = dpo_recipe(
        base__pretrain__trainer={"log_level": "loud"},
        sft__trainer={"optim": "paged_adamw_8bit", "model_init_kwargs": {"atn": "eager"}},
        dpo__trainer={"torch_compile_backend": "none_such"},
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data))
    found = validate_recipe(path, [], tmp_path / "runs", None)
    assert [problem.split(": ")[:2] for problem in found.problems] == [
        [str(path), f"{section}.trainer.{name}"]
        for section, name in (
            ("base.pretrain", "log_level"),
            ("sft", "model_init_kwargs"),
            ("sft", "optim"),
            ("dpo", "torch_compile_backend"),
        )
    ]
    assert not any("trainings tried" in line for line in found.lines)


def test_validate_says_what_it_tried(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe("scorers", select__method="random")))
    found = validate_recipe(path, [], tmp_path / "runs", None)
    assert found.problems == []
    assert "trainings tried on a tiny copy of their model: base, sft" in found.lines

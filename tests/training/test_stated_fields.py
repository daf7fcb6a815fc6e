"""Every field of SFTConfig and DPOConfig has its effect when a recipe states it, or is refused."""

import importlib.metadata
import inspect
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, optimization, trainer_optimizer
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from deita_train.recipe.trainer_fields import check_trainer, refused_fields, trainer_fields
from deita_train.recipe.trainer_readers import (
    JUDGING_SCHEDULERS,
    LAYERWISE,
    OPTIMIZER_FIELDS,
    OPTIMIZERS,
    SCHEDULERS,
)
from deita_train.recipe.trainer_rules import DIVERGENCES, LOSSES, RANGES
from deita_train.training.arguments import TrainingSettings, training_arguments
from deita_train.training.trial import _Trial

KINDS = ("sft", "dpo")
# A value other than the default of each field that a recipe may state, with the fields that it needs beside it.
STATED: dict[str, tuple[Any, dict[str, Any]]] = {
    "per_device_train_batch_size": (2, {}),
    "num_train_epochs": (5, {}),
    "max_steps": (7, {}),
    "learning_rate": (3e-4, {}),
    "lr_scheduler_type": ("constant", {}),
    "lr_scheduler_kwargs": ({"num_cycles": 2.5}, {"lr_scheduler_type": "cosine"}),
    "warmup_steps": (0.1, {}),
    "optim": ("sgd", {}),
    "optim_args": ("momentum=0.5", {"optim": "sgd"}),
    "weight_decay": (0.1, {}),
    "adam_beta1": (0.8, {}),
    "adam_beta2": (0.9, {}),
    "adam_epsilon": (1e-6, {}),
    "optim_target_modules": ("all-linear", {"optim": "galore_adamw"}),
    "max_grad_norm": (0.5, {}),
    "label_smoothing_factor": (0.1, {}),
    "bf16": (True, {}),
    "fp16": (True, {"bf16": False}),
    "tf32": (False, {}),
    "activation_checkpointing": (True, {}),
    "activation_checkpointing_kwargs": ({"use_reentrant": True}, {"activation_checkpointing": True}),
    "gradient_checkpointing": (True, {}),
    "gradient_checkpointing_kwargs": ({"use_reentrant": True}, {"gradient_checkpointing": True}),
    "torch_compile": (True, {}),
    "torch_compile_backend": ("eager", {}),
    "torch_compile_mode": ("reduce-overhead", {}),
    "use_liger_kernel": (True, {}),
    "liger_kernel_config": ({"rope": False}, {"use_liger_kernel": True}),
    "neftune_noise_alpha": (5.0, {}),
    "torch_empty_cache_steps": (10, {}),
    "logging_steps": (3, {}),
    "logging_first_step": (True, {}),
    "log_on_each_node": (False, {}),
    "include_num_input_tokens_seen": ("all", {}),
    "log_level": ("info", {}),
    "log_level_replica": ("info", {}),
    "disable_tqdm": (False, {}),
    "save_steps": (9, {}),
    "full_determinism": (True, {}),
    "dataloader_drop_last": (True, {}),
    "dataloader_num_workers": (2, {}),
    "dataloader_pin_memory": (False, {}),
    "dataloader_persistent_workers": (True, {"dataloader_num_workers": 1}),
    "dataloader_prefetch_factor": (4, {"dataloader_num_workers": 1}),
    "dataloader_multiprocessing_context": ("spawn", {"dataloader_num_workers": 1}),
    "train_sampling_strategy": ("sequential", {}),
    "ddp_find_unused_parameters": (True, {}),
    "ddp_bucket_cap_mb": (10, {}),
    "ddp_broadcast_buffers": (False, {}),
    "ddp_static_graph": (True, {}),
    "ddp_timeout": (60, {}),
    "debug": ("underflow_overflow", {}),
    "model_init_kwargs": ({"attn_implementation": "eager"}, {}),
    "router_aux_loss_coef": (0.01, {}),
    "pad_to_multiple_of": (8, {}),
    "activation_offloading": (True, {}),
    "max_length": (64, {}),
}
OF_KIND: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "sft": {"loss_type": ("dft", {})},
    "dpo": {
        "loss_type": (["ipo"], {}),
        "loss_weights": ([0.5], {}),
        "f_divergence_type": ("js_divergence", {}),
        "f_alpha_divergence_coef": (0.7, {"f_divergence_type": "alpha_divergence"}),
        "label_smoothing": (0.1, {"loss_type": ["robust"]}),
        "beta": (0.2, {}),
        "use_weighting": (True, {}),
        "discopop_tau": (0.1, {"loss_type": ["discopop"]}),
        "disable_dropout": (False, {}),
    },
}
# What the arguments do not show: rows are cut before the training (tests/plan/test_graph.py).
SHOWN_ELSEWHERE = {("dpo", "max_length")}
# Where a GPU's arguments differ from those on a CPU.
ON_A_GPU = {"dataloader_pin_memory", "fp16"}


def stated_fields(kind):
    refused = refused_fields(kind)
    return {name: value for name, value in (STATED | OF_KIND[kind]).items() if name not in refused}


def arguments(kind, trainer, *, use_cpu=True):
    trainer = trainer if use_cpu else {"bf16": False, **trainer}
    settings = TrainingSettings(trainer, 8, 7, 1, "NO", use_cpu, kind=kind)
    return training_arguments(settings, 100, "checkpoints")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_refused_or_shown_to_have_its_effect(kind):
    fields = {name for name, field in trainer_fields(kind).items() if field.init}
    unknown = fields - {*refused_fields(kind)} - {*stated_fields(kind)}
    assert unknown == set(), "say in recipe/trainer_fields.py why these are refused, or show their effect here"
    assert len(refused_fields(kind)) > 60 and len(stated_fields(kind)) > 50
    assert {*stated_fields(kind)} <= fields


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in refused_fields(kind)])
def test_a_refused_field_says_why(kind, name):
    (problem,) = check_trainer(kind, {name: None}, where="x", refused=refused_fields(kind))
    _, begins, reason = problem.split(": ", 2)
    assert begins in ("set by the framework", "would have no effect") and len(reason) > 15
    assert name in {**trainer_fields("sft"), **trainer_fields(kind)}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in stated_fields(kind)])
def test_a_stated_field_is_taken_and_is_in_the_arguments(kind, name):
    value, beside = stated_fields(kind)[name]
    assert check_trainer(kind, {**beside, name: value}, where="x", refused=refused_fields(kind)) == []
    use_cpu = name not in ON_A_GPU
    without = arguments(kind, beside, use_cpu=use_cpu)
    stated = arguments(kind, {**beside, name: value}, use_cpu=use_cpu)
    if (kind, name) in SHOWN_ELSEWHERE:
        return
    assert getattr(stated, name) != getattr(without, name)
    if name != "debug":  # becomes an enumeration
        assert getattr(stated, name) == value


@pytest.mark.parametrize("name", RANGES)
def test_a_value_outside_its_meaning_is_refused(name):
    kind = "sft" if name in trainer_fields("sft") else "dpo"
    whole = "int" in trainer_fields(kind)[name].annotation
    for value in (-2, *(() if whole else (-0.1,))):
        (problem,) = check_trainer(kind, {name: value}, where="x", refused={})
        assert problem.startswith(f"x.{name}: {value} is a") and "expected" in problem


@pytest.mark.parametrize(
    ("kind", "trainer", "problem"),
    [
        ("sft", {"lr_scheduler_type": "constant", "warmup_steps": 3}, "warmup_steps: would have no effect with "
         "lr_scheduler_type: constant; write constant_with_warmup"),
        ("sft", {"num_train_epochs": 0}, "num_train_epochs: 0 is a whole number; expected more than 0"),
        ("sft", {"max_steps": 0}, "max_steps: 0 is a whole number; expected 1 or more, or -1 for none"),
        ("sft", {"max_steps": 5, "num_train_epochs": 2}, "num_train_epochs: would have no effect beside max_steps; "
         "leave one of the two out (null leaves this one out)"),
        ("sft", {"adam_beta1": 1.0}, "adam_beta1: 1.0 is a decimal number; expected 0 or more and less than 1"),
        ("sft", {"save_steps": 2.5}, "save_steps: 2.5 is a decimal number; expected steps, or a share of them below 1"),
        ("sft", {"model_init_kwargs": {"torch_dtype": "bfloat16"}}, "model_init_kwargs: torch_dtype: trl reads dtype, "
         "write that"),
        ("sft", {"model_init_kwargs": '{"load_in_4bit": true}'}, "model_init_kwargs: load_in_4bit: state quantization: "
         "nf4 beside trainer:"),
        ("sft", {"model_init_kwargs": "dtype"}, "model_init_kwargs: 'dtype' is text; expected a mapping"),
        ("sft", {"lr_scheduler_kwargs": {"num_cycle": 1}}, "lr_scheduler_kwargs: num_cycle is not read: "
         "lr_scheduler_type: cosine reads num_cycles"),
        ("dpo", {"lr_scheduler_kwargs": {"num_cycles": 1}}, "lr_scheduler_kwargs: num_cycles is not read: "
         "lr_scheduler_type: linear reads none"),
        ("sft", {"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_type: warmup_stable_decay needs "
         "lr_scheduler_kwargs: with num_decay_steps"),
        ("sft", {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"num_cycles": 1}},
         "lr_scheduler_type: cosine_with_min_lr needs lr_scheduler_kwargs: with min_lr or min_lr_rate"),
        ("sft", {"max_steps": 10, "warmup_steps": 10}, "warmup_steps: 10 of max_steps: 10, so that learning_rate would "
         "never be reached"),
        ("sft", {"max_steps": 10, "warmup_steps": 2, "lr_scheduler_type": "warmup_stable_decay",
                 "lr_scheduler_kwargs": {"num_decay_steps": 9}}, "lr_scheduler_kwargs: num_decay_steps: 9 after "
         "warmup_steps: 2 is more than max_steps: 10, so that learning_rate would never be reached"),
        ("sft", {"lr_scheduler_type": "greedy"}, "lr_scheduler_type: greedy follows evaluations, and there are none in "
         "a training"),
        ("sft", {"optim": "sgd", "adam_beta1": 0.9}, "adam_beta1: would have no effect with optim: sgd"),
        ("sft", {"optim": "sgd", "optim_args": "momentun=0.9, dampening=0"}, "optim_args: momentun is not read: "
         "optim: sgd reads momentum, dampening or nesterov"),
        ("sft", {"optim_args": "momentum=0.9"}, "optim_args: momentum is not read: optim: adamw_torch_fused reads "
         "none"),
        ("sft", {"optim": "galore_adamw_layerwise"}, "optim: galore_adamw_layerwise keeps its moments where no "
         "checkpoint finds them; write galore_adamw"),
        ("sft", {"loss_type": "chunked_nll"}, "loss_type: chunked_nll is computed as nll is, write that"),
        ("sft", {"loss_type": "dft", "label_smoothing_factor": 0.1}, "label_smoothing_factor: would have no effect "
         "with loss_type: dft"),
        ("sft", {"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor: would have no effect without "
         "dataloader_num_workers"),
        ("sft", {"liger_kernel_config": {"rope": True}}, "liger_kernel_config: would have no effect without "
         "use_liger_kernel: true"),
        ("dpo", {"label_smoothing_factor": 0.1}, "label_smoothing_factor: would have no effect: its loss reads "
         "label_smoothing, write that"),
        ("dpo", {"loss_type": ["exo_pair"]}, "loss_type: exo_pair needs label_smoothing: above 0; its paper has 1e-3"),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "loss_weights: 1 for the 2 of loss_type: "
         "[sigmoid, sft]; state one for each"),
        ("dpo", {"loss_weights": [-1.0]}, "loss_weights: [-1.0] is a list; expected weights of more than 0"),
        ("dpo", {"loss_type": []}, "loss_type: [] is a list; expected one loss or more"),
        ("dpo", {"label_smoothing": 1.5}, "label_smoothing: 1.5 is a decimal number; expected 0 or more and less than "
         "0.5"),
        ("dpo", {"label_smoothing": 0.1}, "label_smoothing: would have no effect with loss_type: [sigmoid]"),
        ("dpo", {"loss_type": ["sft"], "beta": 0.2}, "beta: would have no effect with loss_type: [sft]"),
        ("dpo", {"f_alpha_divergence_coef": 0.2}, "f_alpha_divergence_coef: would have no effect without "
         "f_divergence_type: alpha_divergence"),
        ("dpo", {"f_divergence_type": "forward_kl", "loss_type": ["apo_zero"]}, "f_divergence_type: apo_zero is "
         "defined for reverse_kl alone"),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "use_weighting": True}, "use_weighting: weights pairs, and sft is a "
         "mean over tokens; leave one of the two out"),
        ("dpo", {"loss_type": ["aot"], "use_weighting": True}, "use_weighting: weights pairs, and aot sorts their "
         "answers apart; leave one of the two out"),
    ],
)  # fmt: skip
def test_what_would_train_as_if_it_were_not_there_is_refused(kind, trainer, problem):
    assert check_trainer(kind, trainer, where="t", refused=refused_fields(kind)) == [f"t.{problem}"]


def test_what_follows_from_a_wrong_value_is_left_unsaid():
    problems = check_trainer("dpo", {"loss_type": ["robst"], "label_smoothing": 0.1}, where="t", refused={})
    assert len(problems) == 1 and problems[0].startswith("t.loss_type: 'robst' is not allowed (did you mean robust?)")


# Optimizers: what transformers builds of the arguments, with stand-ins for the packages that are not here.


class StandIn(ModuleType):
    """A module in which every name is a class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


PACKAGES = [
    "bitsandbytes", "bitsandbytes.optim", "galore_torch", "apollo_torch", "lomo_optim", "grokadamw", "torchao",
    "torchao.optim", "schedulefree", "optimi", "torch_xla", "torch_xla.amp", "torch_xla.amp.syncfree", "torch_npu",
    "torch_npu.optim", "torchdistx", "torchdistx.optimizers",
]  # fmt: skip


@pytest.fixture
def every_package(monkeypatch):
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, StandIn(name))
    available = [name for name in vars(trainer_optimizer) if name.startswith("is_") and name.endswith("_available")]
    for name in available:
        monkeypatch.setattr(trainer_optimizer, name, lambda *version: True)
    assert len(available) > 7
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "torchao" else version(name))


@pytest.fixture(scope="module")
def tiny_model():
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(config)


def built_optimizer(model, trainer):
    """What an optimizer would be called with, as text; weights by their size."""
    got = arguments("sft", trainer)
    kind, named = Trainer.get_optimizer_cls_and_kwargs(got, model)
    decay = got.weight_decay if not {"params", "model"} & {*named} else None

    def shown(value):
        if isinstance(value, list):
            return [shown(item) for item in value]
        if isinstance(value, dict):
            return {name: shown(item) for name, item in value.items()}
        return tuple(value.shape) if isinstance(value, torch.Tensor) else value

    named.pop("model", None)
    return kind.__name__, decay, shown(named)


OTHER = {"adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-3, "weight_decay": 0.3}
ARGUMENT_VALUES = {
    "centered": "true", "nesterov": "true", "use_kahan_summation": "true", "bf16_stochastic_round": "true",
    "momentum_dtype": "float16", "variance_dtype": "float16", "compensation_buffer_dtype": "float16",
    "kahan_sum": "1", "decouple_lr": "1", "proj_type": "left", "proj": "svd", "scale_type": "tensor",
}  # fmt: skip


def test_every_optimizer_is_in_the_table():
    assert {member.value for member in OptimizerNames} == {*OPTIMIZERS} | LAYERWISE


@pytest.mark.usefixtures("every_package")
@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_an_optimizer_reads_the_fields_of_the_table_and_no_other(tiny_model, optim):
    reads = OPTIMIZERS[optim]
    needs = {"optim_target_modules": "all-linear"} if "optim_target_modules" in reads.fields else {}
    plain = {"optim": optim, **needs}
    usual = built_optimizer(tiny_model, plain)
    for name, value in OTHER.items():
        assert (built_optimizer(tiny_model, {**plain, name: value}) != usual) == (name in reads.fields), name
    if needs:
        fewer = built_optimizer(tiny_model, {**plain, "optim_target_modules": ["q_proj"]})
        assert fewer != usual
    else:
        assert built_optimizer(tiny_model, {**plain, "optim_target_modules": ["q_proj"]}) == usual
    assert {*OTHER, "optim_target_modules"} == {*OPTIMIZER_FIELDS}
    every = {name for entry in OPTIMIZERS.values() for name in entry.arguments or ()}
    for name in every:
        stated = built_optimizer(tiny_model, {**plain, "optim_args": f"{name}={ARGUMENT_VALUES.get(name, '7')}"})
        assert (stated != usual) == (reads.arguments is None or name in reads.arguments), name


# Schedulers.


def test_every_scheduler_is_in_the_table():
    assert {member.value for member in SchedulerType} == {*SCHEDULERS} | JUDGING_SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_reads_the_arguments_of_the_table_and_no_other(name):
    makes = optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
    parameters = inspect.signature(makes).parameters
    own = {*parameters} - {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert own == {*SCHEDULERS[name].arguments}
    assert ("num_warmup_steps" in parameters) == SCHEDULERS[name].warmup


VALUES = {"num_decay_steps": 5, "min_lr": 1e-6, "min_lr_rate": 0.1}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_needs_what_the_table_says(name):
    def make(**given):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return optimization.get_scheduler(
            name, optimizer, num_warmup_steps=2, num_training_steps=20, scheduler_specific_kwargs=given
        )

    needed = SCHEDULERS[name].one_of
    for argument in needed:
        make(**{argument: VALUES[argument]})
    if needed:
        with pytest.raises((ValueError, TypeError)):
            make()
    else:
        make()


# The losses of DPO.


@pytest.fixture(scope="module")
def pairs_trainer(tmp_path_factory):
    """A trainer of pairs, and a batch of them that the model likes a little less and more than its reference did."""
    settings = TrainingSettings({}, 8, 7, 1, "NO", True, kind="dpo")
    trainer = _Trial(None, settings, tmp_path_factory.mktemp("pairs"))._trainer({})
    batch = next(iter(trainer.get_train_dataloader()))
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    return trainer, {**batch, "ref_chosen_logps": chosen + 0.5, "ref_rejected_logps": rejected - 0.25}


def loss_of(pairs_trainer, losses, **changed):
    """The loss of the batch; the trainer keeps its settings as attributes."""
    trainer, batch = pairs_trainer
    usual = {
        "loss_types": losses, "loss_weights": [1.0] * len(losses), "beta": 0.1, "label_smoothing": 0.1,
        "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "use_weighting": False,
    }  # fmt: skip
    trainer.args.discopop_tau = changed.pop("discopop_tau", 0.05)
    vars(trainer).update(usual | changed)
    loss = trainer._compute_loss(trainer.model, dict(batch), return_outputs=False)
    return loss.item()


CHANGED = {"beta": 0.3, "label_smoothing": 0.2, "discopop_tau": 0.5, "f_divergence_type": "js_divergence"}


def test_every_loss_is_in_the_table(pairs_trainer):
    with pytest.raises(ValueError, match="Unknown loss type") as caught:
        loss_of(pairs_trainer, ["none_such"])
    assert {name for name in LOSSES if f"'{name}'" in str(caught.value)} == {*LOSSES}
    assert str(caught.value).count("'") == 2 * len(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_the_fields_of_the_table_and_no_other(pairs_trainer, name):
    usual = loss_of(pairs_trainer, [name])
    for field, value in CHANGED.items():
        if field == "f_divergence_type" and field not in LOSSES[name]:
            continue  # trl refuses it, see below
        assert (loss_of(pairs_trainer, [name], **{field: value}) != usual) == (field in LOSSES[name]), field
    assert loss_of(pairs_trainer, [name], loss_weights=[0.5]) == pytest.approx(usual / 2)
    assert {field for reads in LOSSES.values() for field in reads} == {*CHANGED}


@pytest.mark.parametrize("name", LOSSES)
def test_a_divergence_is_for_the_losses_of_the_table(name, tmp_path):
    settings = TrainingSettings({}, 8, 7, 1, "NO", True, kind="dpo")
    fields = {"loss_type": [name], "f_divergence_type": "forward_kl", "label_smoothing": 0.1}
    refuses = bool(check_trainer("dpo", {**fields, "label_smoothing": 0.0}, where="t", refused={}))
    if "f_divergence_type" in LOSSES[name] or name == "sft":  # which changes nothing
        _Trial(None, settings, tmp_path)._trainer(fields)
    else:
        with pytest.raises(ValueError, match="f_divergence_type"):
            _Trial(None, settings, tmp_path)._trainer(fields)
    assert refuses == ("f_divergence_type" not in LOSSES[name] or name == "exo_pair")


def test_the_divergences_are_those_of_trl_and_change_the_loss(pairs_trainer):
    losses = {name: loss_of(pairs_trainer, ["sigmoid"], f_divergence_type=name) for name in DIVERGENCES}
    assert len(set(losses.values())) == len(DIVERGENCES)
    alpha = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.9}
    assert loss_of(pairs_trainer, ["sigmoid"], **alpha) != losses["alpha_divergence"]
    with pytest.raises(ValueError, match="Unknown f_divergence_type"):
        loss_of(pairs_trainer, ["sigmoid"], f_divergence_type="none_such")

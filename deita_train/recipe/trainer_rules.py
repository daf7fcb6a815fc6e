"""What values of trainer fields mean here: the range of each, and which fields others make idle.

A library takes most of what is refused here without a word: a negative weight trains away from the data, and a field
that nothing reads changes the artefact's key and not the artefact.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from deita_train.recipe.trainer_readers import (
    JUDGING_SCHEDULERS,
    LAYERWISE,
    OPTIMIZER_FIELDS,
    OPTIMIZERS,
    SCHEDULERS,
)
from deita_train.recipe.wording import describe, either, not_allowed
from deita_train.training.defaults import DPO_DEFAULTS, SFT_DEFAULTS

Values = Mapping[str, Any]
Problems = Iterator[tuple[str, str]]
_Range = tuple[Callable[[Any], bool], str]

_ABOVE_0: _Range = (lambda value: value > 0, "more than 0")
_FROM_0: _Range = (lambda value: value >= 0, "0 or more")
_FROM_1: _Range = (lambda value: value >= 1, "1 or more")
_BELOW_1: _Range = (lambda value: 0 <= value < 1, "0 or more and less than 1")
_BELOW_HALF: _Range = (lambda value: 0 <= value < 0.5, "0 or more and less than 0.5")
_STEPS: _Range = (lambda value: 0 < value < 1 or _is_count(value), "steps, or a share of them below 1")
RANGES: Mapping[str, _Range] = {
    "learning_rate": _ABOVE_0,
    "num_train_epochs": _ABOVE_0,
    "max_steps": (lambda value: value == -1 or value >= 1, "1 or more, or -1 for none"),
    "warmup_steps": (lambda value: 0 <= value < 1 or _is_count(value), "steps, or a share of them below 1"),
    "weight_decay": _FROM_0,
    "adam_beta1": _BELOW_1,
    "adam_beta2": _BELOW_1,
    "adam_epsilon": _ABOVE_0,
    "max_grad_norm": _FROM_0,
    "label_smoothing_factor": _BELOW_1,
    "neftune_noise_alpha": _ABOVE_0,
    "router_aux_loss_coef": _FROM_0,
    "logging_steps": _STEPS,
    "save_steps": _STEPS,
    "per_device_train_batch_size": _FROM_1,
    "torch_empty_cache_steps": _FROM_1,
    "dataloader_num_workers": _FROM_0,
    "dataloader_prefetch_factor": _FROM_1,
    "ddp_bucket_cap_mb": _FROM_1,
    "ddp_timeout": _FROM_1,
    "max_length": _FROM_1,
    "beta": _ABOVE_0,
    "label_smoothing": _BELOW_HALF,
    "discopop_tau": _ABOVE_0,
}
# Losses of DPOTrainer -> the fields that only some of them read.
LOSSES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("sigmoid", "sigmoid_norm", "hinge", "ipo"), ("beta", "f_divergence_type")),
    **dict.fromkeys(("nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"), ("beta",)),
    **dict.fromkeys(("exo_pair", "robust"), ("beta", "f_divergence_type", "label_smoothing")),
    **dict.fromkeys(("aot", "aot_unpaired"), ("beta", "label_smoothing")),
    "discopop": ("beta", "f_divergence_type", "discopop_tau"),
    "sft": (),
}
DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
_PLAIN_DIVERGENCE = "reverse_kl"
# What of `model_init_kwargs` is stated elsewhere, or has no effect.
MODEL_OPTIONS: Mapping[str, str] = {
    "torch_dtype": "trl reads dtype, write that",
    "use_cache": "a training caches nothing",
    "revision": "state revision: beside model:",
    "trust_remote_code": "state trust_remote_code: at the top of the recipe",
    "token": "a token has no place in a recipe",
    "device_map": "state launch: beside trainer:",
    "quantization_config": "state quantization: beside trainer:",
    "load_in_4bit": "state quantization: nf4 beside trainer:",
    "load_in_8bit": "state quantization: int8 beside trainer:",
}
_MAPPINGS = frozenset(("model_init_kwargs", "lr_scheduler_kwargs"))


def _is_count(value: float) -> bool:
    return value >= 1 and value == int(value)


def meaning_problem(name: str, value: Any) -> str | None:
    """Return what is wrong with the value of one field of the right type; None when it means something here."""
    if value is None:
        return None
    if name in RANGES and not RANGES[name][0](value):
        return f"{describe(value)}; expected {RANGES[name][1]}"
    if name == "pad_to_multiple_of" and not isinstance(value, str) and value < 1:
        return f"{describe(value)}; expected 1 or more"
    if name in _MAPPINGS:
        return _mapping_problem(name, value)
    special = _CHOICES.get(name)
    return special(value) if special is not None else None


def combination_problems(kind: Literal["sft", "dpo"], values: Values, wrong: Collection[str]) -> dict[str, str]:
    """Return what is wrong with fields beside one another, by field.

    Args:
        kind: Which trainer the values are for.
        values: The stated fields that are right by themselves.
        wrong: The stated fields that are not; what depends on them is left unsaid.
    """
    whole = {**(SFT_DEFAULTS if kind == "sft" else DPO_DEFAULTS), **values}
    found = (rule(whole) for field, rule in (_RULES | _RULES_OF_LOSS[kind]).items() if field not in wrong)
    return {name: text for problems in found for name, text in problems if name in values}


def _mapping_problem(name: str, value: Any) -> str | None:
    options = _as_mapping(value)
    if options is None:
        return f"{describe(value)}; expected a mapping"
    if name != "model_init_kwargs":
        return None
    problems = [f"{option}: {MODEL_OPTIONS[option]}" for option in options if option in MODEL_OPTIONS]
    return "; ".join(problems) or None


def _as_mapping(value: Any) -> Values | None:
    """Return a field that trl takes as a mapping or as JSON; None when it is neither."""
    try:
        options = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return options if isinstance(options, Mapping) else None


def _optimizer_problem(value: str) -> str | None:
    if value in LAYERWISE:
        return f"{value} keeps its moments where no checkpoint finds them; write {value.removesuffix('_layerwise')}"
    return None


def _scheduler_problem(value: str) -> str | None:
    return f"{value} follows evaluations, and there are none in a training" if value in JUDGING_SCHEDULERS else None


def _sft_or_dpo_loss_problem(value: str | list[str]) -> str | None:
    if isinstance(value, str):
        return "chunked_nll is computed as nll is, write that" if value == "chunked_nll" else None
    unknown = next((name for name in value if name not in LOSSES), None)
    if unknown is not None:
        return not_allowed(unknown, tuple(LOSSES))
    return None if value else "[] is a list; expected one loss or more"


def _divergence_problem(value: str) -> str | None:
    return None if value in DIVERGENCES else not_allowed(value, DIVERGENCES)


def _weights_problem(value: list[float]) -> str | None:
    return None if all(weight > 0 for weight in value) else f"{describe(value)}; expected weights of more than 0"


_CHOICES: Mapping[str, Callable[[Any], str | None]] = {
    "optim": _optimizer_problem,
    "lr_scheduler_type": _scheduler_problem,
    "loss_type": _sft_or_dpo_loss_problem,
    "f_divergence_type": _divergence_problem,
    "loss_weights": _weights_problem,
}


def _idle(why: str) -> str:
    return f"would have no effect {why}"


def _epochs(values: Values) -> Problems:
    if values.get("max_steps", -1) > 0:
        yield "num_train_epochs", _idle("beside max_steps; leave one of the two out (null leaves this one out)")


def _optimizer(values: Values) -> Problems:
    optim = values["optim"]
    reads = OPTIMIZERS.get(optim)
    if reads is None:
        return
    for name in OPTIMIZER_FIELDS:
        if name not in reads.fields and values.get(name) is not None:
            yield name, _idle(f"with optim: {optim}")
    if not values.get("optim_args") or reads.arguments is None:
        return
    strange = [name for name in _argument_names(values["optim_args"]) if name not in reads.arguments]
    if strange:
        knows = f"reads {either(reads.arguments)}" if reads.arguments else "reads none"
        yield "optim_args", f"{', '.join(strange)} is not read: optim: {optim} {knows}"


def _argument_names(text: str) -> list[str]:
    return [pair.partition("=")[0] for pair in text.replace(" ", "").split(",")]


def _scheduler(values: Values) -> Problems:
    scheduler = values["lr_scheduler_type"]
    reads = SCHEDULERS.get(scheduler)
    if reads is None:
        return
    if values.get("warmup_steps") and not reads.warmup:
        yield "warmup_steps", _idle("with lr_scheduler_type: constant; write constant_with_warmup")
    given = _as_mapping(values.get("lr_scheduler_kwargs") or {}) or {}
    strange = [name for name in given if name not in reads.arguments]
    if strange:
        knows = f"reads {either(reads.arguments)}" if reads.arguments else "reads none"
        yield "lr_scheduler_kwargs", f"{', '.join(strange)} is not read: lr_scheduler_type: {scheduler} {knows}"
    yield from _steps_of_schedule(values, given)
    if reads.one_of and not any(given.get(name) is not None for name in reads.one_of):
        yield "lr_scheduler_type", f"{scheduler} needs lr_scheduler_kwargs: with {either(reads.one_of)}"


def _steps_of_schedule(values: Values, given: Values) -> Problems:
    """A warm-up, or a decay, that is as long as the whole training: the stated rate would never be reached."""
    steps, warmup, decay = (
        found if isinstance(found, int) and found > 0 else 0
        for found in (values.get("max_steps"), values.get("warmup_steps"), given.get("num_decay_steps"))
    )
    if not steps:
        return
    if warmup >= steps:
        yield "warmup_steps", f"{warmup} of max_steps: {steps}, so that learning_rate would never be reached"
    elif decay and warmup + decay > steps:
        yield (
            "lr_scheduler_kwargs",
            (
                f"num_decay_steps: {decay} after warmup_steps: {warmup} is more than max_steps: {steps}, so that "
                "learning_rate would never be reached"
            ),
        )


def _workers(values: Values) -> Problems:
    if not values.get("dataloader_num_workers"):
        for name in ("dataloader_prefetch_factor", "dataloader_multiprocessing_context"):
            if values.get(name) is not None:
                yield name, _idle("without dataloader_num_workers")
        if values.get("dataloader_persistent_workers"):
            yield "dataloader_persistent_workers", _idle("without dataloader_num_workers")


def _liger(values: Values) -> Problems:
    if values.get("liger_kernel_config") is not None and not values.get("use_liger_kernel"):
        yield "liger_kernel_config", _idle("without use_liger_kernel: true")


def _loss_of_sft(values: Values) -> Problems:
    if values.get("loss_type") == "dft" and values.get("label_smoothing_factor"):
        yield "label_smoothing_factor", _idle("with loss_type: dft")


def _loss_of_dpo(values: Values) -> Problems:
    losses = values.get("loss_type") or ["sigmoid"]
    named = f"loss_type: [{', '.join(losses)}]"
    for name in ("beta", "label_smoothing", "discopop_tau"):
        if values.get(name) and not any(name in LOSSES[loss] for loss in losses):
            yield name, _idle(f"with {named}")
    if "exo_pair" in losses and not values.get("label_smoothing"):
        yield "loss_type", "exo_pair needs label_smoothing: above 0; its paper has 1e-3"
    weights = values.get("loss_weights")
    if weights is not None and len(weights) != len(losses):
        yield "loss_weights", f"{len(weights)} for the {len(losses)} of {named}; state one for each"
    if values.get("use_weighting") and {"aot", "aot_unpaired"} & {*losses}:
        yield "use_weighting", "weights pairs, and aot sorts their answers apart; leave one of the two out"
    if values.get("use_weighting") and "sft" in losses:
        yield "use_weighting", "weights pairs, and sft is a mean over tokens; leave one of the two out"


def _divergence(values: Values) -> Problems:
    losses = values.get("loss_type") or ["sigmoid"]
    divergence = values.get("f_divergence_type", _PLAIN_DIVERGENCE)
    if divergence != _PLAIN_DIVERGENCE:
        fixed = [loss for loss in losses if loss != "sft" and "f_divergence_type" not in LOSSES[loss]]
        if fixed:
            yield "f_divergence_type", f"{', '.join(fixed)} is defined for reverse_kl alone"
        elif losses == ["sft"]:
            yield "f_divergence_type", _idle("with loss_type: [sft]")
    if "f_alpha_divergence_coef" in values and divergence != "alpha_divergence":
        yield "f_alpha_divergence_coef", _idle("without f_divergence_type: alpha_divergence")


Rules = dict[str, Callable[[Values], Problems]]
# By the field that a rule goes by.
_RULES: Rules = {
    "max_steps": _epochs,
    "optim": _optimizer,
    "lr_scheduler_type": _scheduler,
    "dataloader_num_workers": _workers,
    "use_liger_kernel": _liger,
}
_RULES_OF_LOSS: Mapping[Literal["sft", "dpo"], Rules] = {
    "sft": {"loss_type": _loss_of_sft},
    "dpo": {"loss_type": _loss_of_dpo, "f_divergence_type": _divergence},
}

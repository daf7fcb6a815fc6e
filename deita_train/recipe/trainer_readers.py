"""Which trainer fields each optimizer and each scheduler of transformers reads.

A field that none of them reads is ignored without a word, so that a recipe which states it would train as if it did
not. Tests build every optimizer and scheduler and compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_BETAS = ("adam_beta1", "adam_beta2")
_ADAM = (*_BETAS, "adam_epsilon")
_DECAY = ("weight_decay",)
_LOW_RANK = ("rank", "update_proj_gap", "scale", "proj_type")
_ADEMAMIX = ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3")
_SCHEDULE_FREE = ("weight_lr_power", "r")


@dataclass(frozen=True)
class OptimizerReads:
    """What an optimizer reads.

    Attributes:
        fields: Those of the fields that only some optimizers read.
        arguments: The names that it takes from ``optim_args``; None when it hands on whatever is there.
    """

    fields: tuple[str, ...]
    arguments: tuple[str, ...] | None = ()


# The fields that only some optimizers read.
OPTIMIZER_FIELDS = (*_ADAM, *_DECAY, "optim_target_modules")
_PLAIN = OptimizerReads(_DECAY)
_ADAMW = OptimizerReads((*_ADAM, *_DECAY))
_OF_ADEMAMIX = OptimizerReads((*_ADAM, *_DECAY), _ADEMAMIX)
_LION = OptimizerReads((*_BETAS, *_DECAY))
_RMSPROP_BNB = OptimizerReads(_DECAY, None)
_GALORE = OptimizerReads(("optim_target_modules",), _LOW_RANK)
_TORCHAO = OptimizerReads((*_ADAM, *_DECAY), ("block_size", "bf16_stochastic_round"))
_SCHEDULE_FREE_ADAM = OptimizerReads((*_ADAM, *_DECAY), _SCHEDULE_FREE)
OPTIMIZERS: Mapping[str, OptimizerReads] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"), _ADAMW),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"), _ADAMW),
    "adamw_anyprecision": OptimizerReads(
        (*_ADAM, *_DECAY),
        ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    ),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), _TORCHAO),
    **dict.fromkeys(("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"), _OF_ADEMAMIX),
    **dict.fromkeys(("lion_8bit", "lion_32bit", "paged_lion_32bit", "paged_lion_8bit"), _LION),
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"), _RMSPROP_BNB),
    "adafactor": _PLAIN,
    "sgd": OptimizerReads(_DECAY, ("momentum", "dampening", "nesterov")),
    "adagrad": OptimizerReads(_DECAY, ("lr_decay", "eps")),
    "rmsprop": OptimizerReads(_DECAY, ("momentum", "alpha", "eps", "centered")),
    **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), _GALORE),
    "lomo": OptimizerReads(()),
    "adalomo": OptimizerReads(()),
    "grokadamw": OptimizerReads(
        _DECAY, ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping")
    ),
    "schedule_free_radam": _SCHEDULE_FREE_ADAM,
    "schedule_free_adamw": _SCHEDULE_FREE_ADAM,
    "schedule_free_sgd": OptimizerReads(_DECAY, _SCHEDULE_FREE),
    "apollo_adamw": OptimizerReads((*_ADAM, "optim_target_modules"), (*_LOW_RANK, "proj", "scale_type")),
    "stable_adamw": OptimizerReads((*_ADAM, *_DECAY), ("max_lr", "kahan_sum", "decouple_lr")),
}
# Their moments are in hooks on the weights, where no checkpoint finds them.
LAYERWISE = frozenset(
    ("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "apollo_adamw_layerwise")
)


@dataclass(frozen=True)
class SchedulerReads:
    """What a scheduler reads.

    Attributes:
        arguments: The names that it takes from ``lr_scheduler_kwargs``.
        one_of: Those of which it needs one; empty when it needs none.
        warmup: Whether it reads ``warmup_steps``.
    """

    arguments: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    warmup: bool = True


_MIN_LR = ("min_lr", "min_lr_rate")
SCHEDULERS: Mapping[str, SchedulerReads] = {
    "linear": SchedulerReads(),
    "cosine": SchedulerReads(("num_cycles",)),
    "cosine_with_restarts": SchedulerReads(("num_cycles",)),
    "polynomial": SchedulerReads(("lr_end", "power")),
    "constant": SchedulerReads(warmup=False),
    "constant_with_warmup": SchedulerReads(),
    "inverse_sqrt": SchedulerReads(("timescale",)),
    "cosine_with_min_lr": SchedulerReads(("num_cycles", *_MIN_LR), _MIN_LR),
    "cosine_warmup_with_min_lr": SchedulerReads(("num_cycles", *_MIN_LR, "warmup_lr_rate"), _MIN_LR),
    "warmup_stable_decay": SchedulerReads(
        ("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),
        ("num_decay_steps",),
    ),
}
# They follow an evaluation's loss.
JUDGING_SCHEDULERS = frozenset(("reduce_lr_on_plateau", "greedy"))

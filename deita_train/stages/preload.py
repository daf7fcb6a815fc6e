"""Imported once by the fork server, so every forked stage starts with its libraries loaded."""

import gc
import os
from importlib import import_module
from importlib.util import find_spec

import matplotlib.figure
import pyarrow.parquet
import transformers.models.llama.modeling_llama
import trl.trainer.dpo_trainer
import trl.trainer.sft_trainer

import deita_train.report.page
import deita_train.stages.training.trial
from deita_train.stages.kinds import STAGE_KINDS, stage_module

# The fork server serves only CPUs; this keeps deepspeed from warning that it found no GPU.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
MODULES = (
    matplotlib.figure,
    pyarrow.parquet,
    transformers.models.llama.modeling_llama,
    trl.trainer.dpo_trainer,
    trl.trainer.sft_trainer,
    deita_train.report.page,
    deita_train.stages.training.trial,
    *(stage_module(kind) for kind in STAGE_KINDS),
    # accelerate would import it at the first training, again in every child
    *([import_module("deepspeed")] if find_spec("deepspeed") else []),
)
# Every training begins with a full collection, which need not walk the libraries' objects in each child.
gc.collect()
gc.freeze()

"""Imported once by the fork server, so that every forked stage starts with its libraries loaded. Runs nothing."""

import sys

import matplotlib.figure
import pyarrow.parquet
import transformers.models.llama.modeling_llama
import trl.trainer.sft_trainer

import deita_train.report.page
from deita_train.stages.table import STAGES, stage_module

if sys.platform.startswith("linux"):
    pass  # accelerate imports it at the first training, in every child anew

MODULES = (
    matplotlib.figure,
    pyarrow.parquet,
    transformers.models.llama.modeling_llama,
    trl.trainer.sft_trainer,
    deita_train.report.page,
    *(stage_module(kind) for kind in STAGES),
)

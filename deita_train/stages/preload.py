"""Imported once by the fork server, so that every forked stage starts with its libraries loaded. Runs nothing."""

import datasets
import torch
import transformers
import trl
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

__all__ = ["AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "SFTConfig", "SFTTrainer", "datasets", "torch",
           "transformers", "trl"]  # fmt: skip

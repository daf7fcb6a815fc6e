"""The trainer fields whose default is ours, not trl's. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

# The default of the installed torch and transformers, which compute it when they are imported.
_OPTIMIZER = {"optim": "adamw_torch_fused"}
# A cosine is what the paper and its public code train with [paper App. A].
SFT_DEFAULTS: Mapping[str, Any] = {"lr_scheduler_type": "cosine", **_OPTIMIZER}
DPO_DEFAULTS: Mapping[str, Any] = {"lr_scheduler_type": "linear", **_OPTIMIZER}
# Tokens at which rows are cut: the length of the paper [App. A] and of the public code. trl's default is 1,024.
MAX_LENGTH = 2048

"""The trainer fields whose default is ours, not trl's. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

# The default of the installed torch and transformers, which compute it when they are imported.
_OPTIMIZER = {"optim": "adamw_torch_fused"}
# trl would add the loss that balances a mixture of experts to every training of one, by the model's own coefficient.
_ROUTER = {"router_aux_loss_coef": 0.0}
# A cosine is what the paper and its public code train with [paper App. A].
SFT_DEFAULTS: Mapping[str, Any] = {"lr_scheduler_type": "cosine", **_OPTIMIZER, **_ROUTER}
DPO_DEFAULTS: Mapping[str, Any] = {"lr_scheduler_type": "linear", **_OPTIMIZER, **_ROUTER}
# Tokens at which rows are cut: the length of the paper [App. A] and of the public code. trl's default is 1,024.
MAX_LENGTH = 2048

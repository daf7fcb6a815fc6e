"""Forward passes of one model over padded batches: last hidden states, last logits, summed token losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from deita_train.errors import UserError
from deita_train.inference.logit_rule import LogitRule
from deita_train.models.adapter_files import is_adapter
from deita_train.models.remote_code import own_code

# Token ids of one row.
Row = Sequence[int] | np.ndarray

# Positions per product with the output head: [chunk, V] logits instead of [B, T, V].
_HEAD_CHUNK_TOKENS = 1024


def load_model(path: str, dtype: str, device: torch.device, *, head: bool, trust_code: bool = False) -> PreTrainedModel:
    """A transformers model in evaluation mode; without its output head when only hidden states are wanted.

    `path` is a folder with a whole model, or with an adapter, which is then active and unmerged inside its base.
    Code that the model brings along is executed where `trust_code` says so, and refused elsewhere.
    """
    load = _load_adapted if is_adapter(Path(path)) else _load_whole
    model = load(path, getattr(torch, dtype), head=head, trust_code=trust_code)
    model.to(device)  # type: ignore[arg-type]  # transformers types the first argument as self
    model.eval()
    return model


def _load_whole(path: str, dtype: torch.dtype, *, head: bool, trust_code: bool) -> PreTrainedModel:
    kind = AutoModelForCausalLM if head else AutoModel
    with own_code(path, trust_code):
        model: PreTrainedModel = kind.from_pretrained(path, dtype=dtype, trust_remote_code=trust_code)
    return model


def _load_adapted(path: str, dtype: torch.dtype, *, head: bool, trust_code: bool) -> PreTrainedModel:
    """The base with the adapter's layers in it, without peft's wrapper: transformers' own class and attributes."""
    from deita_train.inference.adapter_loading import load_adapter  # peft takes a second, and few runs have adapters

    base: Any = load_adapter(Path(path), dtype, trust_code).get_base_model()
    return base if head else base.base_model


@dataclass(frozen=True)
class PaddedBatch:
    """Padded token ids.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T].
        last: int64 [B], the position of each row's last token.
        on_the_right: whether all padding is on the right, so that a causal model needs no mask.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    last: torch.Tensor
    on_the_right: bool = False


def pad_batch(rows: Sequence[Row], device: torch.device) -> PaddedBatch:
    """Pad on the right with id 0, which need not be the tokenizer's padding id because it is never read."""
    input_ids = pad_right(rows, 0).to(device)
    lengths = torch.tensor([len(row) for row in rows]).to(device)
    mask = (torch.arange(input_ids.shape[1], device=device)[None, :] < lengths[:, None]).long()
    return PaddedBatch(input_ids, mask, lengths - 1, on_the_right=True)


def pad_right(rows: Sequence[Row], filling: int) -> torch.Tensor:
    """The rows as one int64 tensor [B, T] on the CPU, so that a batch is one copy to the device."""
    assert all(len(row) for row in rows), "an empty row has no last token"
    padded = torch.full((len(rows), max(map(len, rows))), filling, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.from_numpy(np.array(row, dtype=np.int64))
    return padded


def _states(trunk: torch.nn.Module, batch: PaddedBatch) -> torch.Tensor:
    """The last layer's hidden states (after the final norm), [B, T, D]; those of padding are meaningless.

    In a causal model no token sees what is to its right, so padding there needs no mask. Without one, attention kernels
    skip the masked half and need no [B, T, T] mask in memory.
    """
    mask = None if batch.on_the_right and _is_causal(trunk) else batch.attention_mask
    states: torch.Tensor = trunk(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    return states


def _is_causal(trunk: torch.nn.Module) -> bool:
    """Whether every attention layer declares itself causal, as transformers' layers do."""
    layers = [module.is_causal for module in trunk.modules() if hasattr(module, "is_causal")]
    return bool(layers) and all(layers)


@torch.inference_mode()
def last_hidden_states(trunk: torch.nn.Module, batch: PaddedBatch) -> torch.Tensor:
    """The last layer's hidden state (after the final norm) at each row's last token, [B, D] in the model's dtype."""
    hidden = _states(trunk, batch)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), batch.last]


@torch.inference_mode()
def mean_hidden_states(trunk: torch.nn.Module, batch: PaddedBatch) -> torch.Tensor:
    """The mean over each row's attended tokens of the last layer's hidden states (after its norm), float32 [B, D]."""
    states = _states(trunk, batch)
    attended = batch.attention_mask[:, :, None].bool()
    # Padding positions may hold nan, which multiplying by zero would not remove.
    total = states.float().masked_fill(~attended, 0.0).sum(dim=1)
    return total / batch.attention_mask.sum(dim=1, keepdim=True)


@torch.inference_mode()
def weighted_mean_hidden_states(trunk: torch.nn.Module, batch: PaddedBatch) -> torch.Tensor:
    """The same mean weighted by position: token t of T counts t / (1 + ... + T), float32 [B, D].

    From SGPT (Muennighoff 2022, arXiv 2202.08904): a later token of a causal model has seen more of the text.
    """
    states = _states(trunk, batch)
    attended = batch.attention_mask.bool()
    place = batch.attention_mask.cumsum(dim=1).float().masked_fill(~attended, 0.0)
    weights = (place / place.sum(dim=1, keepdim=True))[:, :, None]
    return (states.float().masked_fill(~attended[:, :, None], 0.0) * weights).sum(dim=1)


@torch.inference_mode()
def head_logits(model: PreTrainedModel, hidden: torch.Tensor, token_ids: Sequence[int] | None = None) -> torch.Tensor:
    """The model's logits for hidden states [B, D]: float32 [B, V] or, for some tokens alone, [B, len(token_ids)].

    For a few tokens only their rows of the head are read, unless the head is more than one matrix (it has an adapter).
    """
    head: Any = model.get_output_embeddings()
    rule = LogitRule.of(model.config)
    if token_ids is None:
        return rule(head(hidden))
    ids = list(token_ids)
    if type(head) is not torch.nn.Linear:
        return rule(head(hidden)[:, ids])
    bias = None if head.bias is None else head.bias[ids]
    return rule(torch.nn.functional.linear(hidden, head.weight[ids], bias))


def last_logits(model: PreTrainedModel, batch: PaddedBatch, token_ids: Sequence[int] | None = None) -> torch.Tensor:
    """The next-token logits after each row's last token, float32 [B, V] or [B, len(token_ids)]."""
    return head_logits(model, last_hidden_states(model.base_model, batch), token_ids)


@torch.inference_mode()
def summed_loss(model: PreTrainedModel, batch: PaddedBatch, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood summed over each row's labelled tokens, float64 [B], and their number, int64 [B].

    `labels`: int64 [B, T], -100 where a token does not count. Only labelled positions meet the output head, in chunks.
    """
    states = _states(model.base_model, batch)
    targets = labels[:, 1:]
    rows, positions = (targets != -100).nonzero(as_tuple=True)
    hidden = states[rows, positions]
    wanted = targets[rows, positions]
    losses = torch.cat(
        [
            torch.nn.functional.cross_entropy(head_logits(model, part), target, reduction="none")
            for part, target in zip(hidden.split(_HEAD_CHUNK_TOKENS), wanted.split(_HEAD_CHUNK_TOKENS), strict=True)
        ]
    )
    sums = torch.zeros(labels.shape[0], dtype=torch.float64, device=losses.device).index_add_(0, rows, losses.double())
    counts = torch.bincount(rows, minlength=labels.shape[0])
    return sums.cpu().numpy(), counts.cpu().numpy()


def check_logits(model: PreTrainedModel, input_ids: Row, device: torch.device) -> None:
    """Check that the model's own logits are those that `head_logits` makes of its last hidden state.

    Raises:
        UserError: the model does something else to them, or keeps its hidden states to itself.
    """
    name = type(model).__name__
    if model.base_model is model:
        raise UserError(
            f"{name} does not give its hidden states, from which logits are computed; choose another model."
        )
    batch = pad_batch([input_ids], device)
    with torch.inference_mode():
        own = (
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[:, -1].float()
        )
    some = range(0, own.shape[-1], max(1, own.shape[-1] // 64))
    tolerance = (1e-4 if model.dtype == torch.float32 else 0.02) * float(own.abs().max().clamp(min=1))
    whole, rows = last_logits(model, batch), last_logits(model, batch, some)
    if not (torch.allclose(own, whole, atol=tolerance) and torch.allclose(own[:, some], rows, atol=tolerance)):
        raise UserError(
            f"{name} does something to its logits after the output head that is neither the scale nor the soft cap of "
            "its configuration, so trainings, scores and losses would go by other numbers than the model's own; choose "
            "another model."
        )

"""What can be known of a model before it is loaded, from a tiny copy of its architecture."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedModel

from deita_train.errors import UserError
from deita_train.inference.forward import check_logits
from deita_train.models.tiny_copy import VOCABULARY, NotCopied, tiny_copy

_CPU = torch.device("cpu")
_FIRST_ROW, _SECOND_ROW = 7, 9
# Of the largest logit; what rounding leaves is below 2e-6.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Architecture:
    """What a tiny copy of a model showed.

    Attributes:
        name: the model's class.
        untried: why there is no copy; None if there is one, and everything else is about it.
        logits_problem: what is wrong with how it computes its logits; None for nothing.
        separates_packed: whether conversations in one row do not see each other when their positions begin anew.
    """

    name: str
    untried: str | None = None
    logits_problem: str | None = None
    separates_packed: bool = False


def try_architecture(config: Any) -> Architecture:
    """Try a tiny copy of the model of a whole transformers configuration, once in a process."""
    return _tried(_Shown(config, config.to_json_string(use_diff=False)))


@dataclass(frozen=True)
class _Shown:
    """A configuration that is compared by its text."""

    config: Any
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shown) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@lru_cache(maxsize=16)
def _tried(shown: _Shown) -> Architecture:
    named = getattr(shown.config, "architectures", None) or [shown.config.model_type]
    try:
        model = tiny_copy(shown.config)
    except NotCopied as error:
        return Architecture(str(named[0]), untried=str(error))
    return Architecture(
        type(model).__name__, logits_problem=_logits_problem(model), separates_packed=separates_packed(model)
    )


def _logits_problem(model: PreTrainedModel) -> str | None:
    try:
        check_logits(model, _ids(_SECOND_ROW)[0].tolist(), _CPU)
    except UserError as error:
        return str(error)
    return None


def separates_packed(model: PreTrainedModel) -> bool:
    """Whether the second row of a packed one has the logits that it has alone, on the model's device."""
    first, second = _ids(_FIRST_ROW).to(model.device), _ids(_SECOND_ROW).to(model.device)
    positions = torch.cat([torch.arange(_FIRST_ROW), torch.arange(_SECOND_ROW)])[None].to(model.device)
    with torch.inference_mode():
        alone = model(input_ids=second, use_cache=False).logits
        packed = model(input_ids=torch.cat([first, second], dim=1), position_ids=positions, use_cache=False).logits
    difference = (packed[:, _FIRST_ROW:] - alone).abs().max()
    return bool(difference <= _TOLERANCE * alone.abs().max().clamp(min=1))


def _ids(count: int) -> torch.Tensor:
    """Token ids of a row that begins otherwise than a row of another length, int64 [1, count]."""
    return (torch.arange(count)[None] * 5 + 3 * count) % (VOCABULARY - 2) + 2

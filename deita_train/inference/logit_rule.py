"""What a model does to its logits after the output head, as its configuration says."""

from dataclasses import dataclass
from typing import Any, Self

import torch

# Factors by which models multiply their logits, under the names of their configurations; trl's trainers know the same.
_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
# By this models divide, except one family, which multiplies.
_DIVISOR = "logits_scaling"
_MULTIPLIES_BY_IT = "hyperclovax"
_CAP = "final_logit_softcapping"


@dataclass(frozen=True)
class LogitRule:
    """Logits from the output head's product p: `scale` x p and, with a soft cap, cap x tanh(scale x p / cap)."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Self:
        """The rule of a transformers configuration; one that says nothing leaves the product as it is."""
        text = config.get_text_config()
        scale = next((factor for name in _FACTORS if (factor := getattr(text, name, None)) is not None), None)
        divisor = getattr(text, _DIVISOR, None)
        if scale is None and divisor is not None:
            scale = divisor if text.model_type == _MULTIPLIES_BY_IT else 1 / divisor
        return cls(1.0 if scale is None else float(scale), getattr(text, _CAP, None))

    def __call__(self, product: torch.Tensor) -> torch.Tensor:
        """The logits of the output head's product, float32 of its shape."""
        logits = product.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

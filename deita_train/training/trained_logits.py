"""Whether a trainer trains on the model's own logits, on the model itself."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Trainer

from deita_train.errors import UserError

_TOKENS = 64
# Of a log-probability: float32 weights differ by rounding alone, and bfloat16 keeps eight bits of a logit.
_EXACT_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.3


def check_trained_logits(trainer: Trainer, row: Mapping[str, Any]) -> None:
    """Compare the log-probabilities that trl's output head gives for a row with those of the model's own logits.

    Args:
        trainer: With its model, before the training.
        row: A prepared row; of a pair, its prompt and chosen answer are taken.

    Raises:
        UserError: They differ, so that the training would go by other numbers than the model's own.
    """
    model: Any = trainer.model
    tokens = row["input_ids"] if "input_ids" in row else [*row["prompt_ids"], *row["chosen_ids"]]
    ids = torch.tensor([tokens[:_TOKENS]], device=trainer.args.device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        trained = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs[0].float()
        own = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    model.train(was_training)
    own = own.gather(-1, ids[0, 1:, None])[:, 0]
    exact = model.dtype == torch.float32 and not (trainer.args.bf16 or trainer.args.fp16)
    tolerance = _EXACT_TOLERANCE if exact else _HALF_TOLERANCE
    difference = float((trained - own).abs().max())
    if not difference <= tolerance:
        name = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
        raise UserError(
            f"{name} does something to its logits after the output head that trl's trainers do not know (its "
            f"log-probabilities differ by up to {difference:.3g}), so it would be trained on other numbers than its "
            "own; choose another model."
        )

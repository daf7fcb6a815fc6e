"""From logits to a score: the expectation over the six digits [paper 2.3, 2.4; the public code's inference]."""

import torch


def digit_expectation(digit_logits: torch.Tensor) -> torch.Tensor:
    """The expected digit: the sum over k of k * softmax(digit_logits)[k].

    Args:
        digit_logits: `[B, 6]`, of the digits 1 to 6.

    Returns:
        `[B]` float32 within [1, 6].
    """
    weights = torch.arange(1, digit_logits.shape[-1] + 1, dtype=torch.float32, device=digit_logits.device)
    return (digit_logits.float().softmax(dim=-1) * weights).sum(dim=-1)


def digit_mass(logits: torch.Tensor, digit_ids: list[int]) -> torch.Tensor:
    """The probability that the next token is one of the six digits.

    Near zero, the model is no scorer of this kind: its score would be an expectation over noise.

    Args:
        logits: `[B, V]`.
        digit_ids: token ids of the digits.

    Returns:
        `[B]` float32.
    """
    logits = logits.float()
    return (logits[:, digit_ids].logsumexp(dim=-1) - logits.logsumexp(dim=-1)).exp()

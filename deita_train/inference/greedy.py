"""What a model answers: the likeliest token, one after another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop_ids: Sequence[int],
    max_length: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The tokens that a model writes after each prompt, up to a stop token, which is the last one.

    Prompts of one length are answered together: none is padded, so each has the answer that it has alone.

    Args:
        model: in evaluation mode, with its output head.
        prompts: token ids, none empty and none longer than `max_length`.
        max_new_tokens: the most that it writes.
        stop_ids: the tokens after which it writes no more.
        max_length: the longest row that the model can read; None for any.
        on_progress: takes the number of prompts answered so far.
    """
    answers: dict[int, list[int]] = {}
    for length in sorted({len(prompt) for prompt in prompts}):
        places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
        room = max_new_tokens if max_length is None else min(max_new_tokens, max_length - length)
        written = (
            _written(model, [prompts[place] for place in places], room, stop_ids) if room > 0 else [[]] * len(places)
        )
        answers |= zip(places, written, strict=True)
        on_progress(len(answers))
    return [_until(answers[place], stop_ids) for place in range(len(prompts))]


def _written(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int]
) -> list[list[int]]:
    """What `generate` adds to prompts of one length, with padding after the shorter answers."""
    ids = torch.tensor(prompts, device=model.device)
    own = model.generation_config
    # Whatever the model's own configuration leaves unsaid here would be taken from it, such as penalties.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,
    )
    try:
        rows = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    finally:
        model.generation_config = own
    written: list[list[int]] = rows[:, ids.shape[1] :].tolist()
    return written


def _until(tokens: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((place + 1 for place, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return list(tokens[:end])

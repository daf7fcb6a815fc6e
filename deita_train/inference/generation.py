"""Answers written by a model in batches: left-padded, sorted by length, ended by the model's end of turn."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from deita_train.data.control_tokens import control_tokens
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.errors import UserError

_ANSWER = "I am fine, thank you."
_TURNS = (
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "Good."},
)
# Instead of a drawn 0, whose logarithm is infinite.
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue.

    Attributes:
        ids: the tokens, with whatever begins the sequence.
        max_new_tokens: the most that are written.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn from the whole distribution.
        seed: decides what is drawn, whatever else is in the batch.
    """

    ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Generated:
    """What the model wrote, without the token that ends it; `ended` is false if it was cut at the limit."""

    ids: list[int]
    ended: bool


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens at which the model's turn ends: those that its files name, and the one that its template writes.

    Raises:
        UserError: there is none, so that every answer would run to its limit.
    """
    stated: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    own = [stated] if isinstance(stated, int) else list(stated or ())
    found = [*own, tokenizer.eos_token_id, *_end_of_turn(tokenizer)]
    unique = list(dict.fromkeys(token for token in found if token is not None))
    if not unique:
        raise UserError(
            f"{tokenizer.name_or_path}: neither the model's files nor its chat template name a token that ends an "
            "answer; state eos_token_id in generation_config.json."
        )
    return unique


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The control token that the chat template writes behind an answer, if there is one.

    It may be the one that begins the user's turn: some models end theirs so.
    """
    try:
        text = rendered_text(tokenizer, _TURNS, labelled=False).text
    except RowRefused:
        return []  # a template for other conversations; what the files name must do
    behind = text.rpartition(_ANSWER)[2]
    start, end = next(iter(control_tokens(tokenizer).spans(behind)), (0, 0))
    token: Any = tokenizer.convert_tokens_to_ids(behind[start:end]) if end and not behind[:start].strip() else None
    return [] if token is None else [token]


def context_length(model: PreTrainedModel) -> int | None:
    """The tokens of the longest sequence, prompt and answer together; None if the model does not say."""
    length = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return length if isinstance(length, int) else None


def generate(
    model: PreTrainedModel, prompts: Sequence[Prompt], stops: Collection[int], max_rows: int
) -> Iterator[list[tuple[int, Generated]]]:
    """Continue every prompt; the longest first, in batches of similar length and equal limit.

    With temperature 0, equal prompts give equal answers; what shares a batch with them changes the logits by rounding
    alone. A batch that is too large for the GPU is halved.

    Args:
        model: with its output head, in evaluation mode.
        prompts: none may be empty, nor longer than the model's context with what is to be written.
        stops: the tokens that end an answer.
        max_rows: of a batch.

    Yields:
        For each batch the positions of its prompts with what was written.

    Raises:
        UserError: a single prompt is too large for the memory.
    """
    order = sorted(range(len(prompts)), key=lambda place: (prompts[place].max_new_tokens, -len(prompts[place].ids)))
    for _, equal in groupby(order, key=lambda place: prompts[place].max_new_tokens):
        places = list(equal)
        for start in range(0, len(places), max_rows):
            batch = places[start : start + max_rows]
            yield list(zip(batch, _generate_batch(model, [prompts[place] for place in batch], stops), strict=True))


def _generate_batch(model: PreTrainedModel, prompts: Sequence[Prompt], stops: Collection[int]) -> list[Generated]:
    try:
        return _continued(model, prompts, stops)
    except torch.cuda.OutOfMemoryError:
        if len(prompts) == 1:
            raise UserError(
                f"a prompt of {len(prompts[0].ids):,} tokens with an answer of {prompts[0].max_new_tokens:,} is too "
                "large for the GPU's memory even alone. Use a smaller model, or a GPU with more free memory."
            ) from None
    # Outside the handler, in which the exception keeps the failed attempt's tensors alive.
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    return [*_generate_batch(model, prompts[:half], stops), *_generate_batch(model, prompts[half:], stops)]


@torch.inference_mode()
def _continued(model: PreTrainedModel, prompts: Sequence[Prompt], stops: Collection[int]) -> list[Generated]:
    padding = next(iter(stops))
    input_ids, mask = _padded_left([prompt.ids for prompt in prompts], padding)
    config = GenerationConfig(
        max_new_tokens=prompts[0].max_new_tokens,
        do_sample=False,  # `_Drawing` draws
        # The model's own file may name these, too. A penalty on repetition would also count the padding of a batch.
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        num_beams=1,
        use_cache=True,
        eos_token_id=list(stops),
        pad_token_id=padding,
    )
    drawing = [_Drawing(prompts)] if any(prompt.temperature > 0 for prompt in prompts) else []
    writer: Any = model  # transformers leaves the class of `generate` open
    whole = writer.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
        logits_processor=drawing,
    )
    return [_until_stop(row, stops) for row in whole[:, input_ids.shape[1] :].tolist()]


def _padded_left(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [B, T]."""
    assert all(rows), "a prompt has at least one token"
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, longest - len(row) :] = 1
    return ids, mask


def _until_stop(ids: Sequence[int], stops: Collection[int]) -> Generated:
    """A row up to its first stop token, behind which is padding."""
    for place, token in enumerate(ids):
        if token in stops:
            return Generated(list(ids[:place]), ended=True)
    return Generated(list(ids), ended=False)


class _Drawing(LogitsProcessor):
    """Draws each row's next token with a generator of its own, so that the batch does not matter.

    The largest of logits / temperature + Gumbel noise is a draw from their softmax, and taking the largest is what
    generating without sampling does.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._temperatures = [prompt.temperature for prompt in prompts]
        self._generators = [torch.Generator().manual_seed(prompt.seed) for prompt in prompts]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        drawn: Any = scores.float().clone()
        for row, (temperature, generator) in enumerate(zip(self._temperatures, self._generators, strict=True)):
            if temperature > 0:
                noise = torch.rand(scores.shape[-1], generator=generator, dtype=torch.float64)
                gumbel = -torch.log(-torch.log(noise.clamp_min(_SMALLEST)))
                drawn[row] = drawn[row] / temperature + gumbel.to(drawn)
        return drawn

"""Conversations as token ids, through the run's one chat template, with the assistant's tokens marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from deita_train.data.control_tokens import check_control_tokens
from deita_train.errors import UserError

IGNORED = -100


@dataclass(frozen=True)
class RenderedConversation:
    """`input_ids` and `labels` of equal length T; a label is the token's id in an assistant span (its content and the
    end-of-turn token) and -100 elsewhere. `truncated` tells that tokens beyond the limit were cut off on the right."""

    input_ids: list[int]
    labels: list[int]
    truncated: bool


@dataclass(frozen=True)
class RenderedPair:
    """The token ids of a prompt, up to where the assistant begins, and of two answers, each with its end of turn.

    `truncated` tells that a sequence of prompt and answer was cut on the right.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    truncated: bool

    @property
    def differs(self) -> bool:
        """Whether the answers have tokens left and are not the same: otherwise nothing can be learnt or measured."""
        return bool(self.chosen_ids and self.rejected_ids) and self.chosen_ids != self.rejected_ids


def load_tokenizer(path: str, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer as its files say, with the run's chat template in place of its own.

    Raises :class:`UserError` when the files are not there or make no tokenizer, and when the tokenizer lacks a control
    token that the template writes.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".: ")
        raise UserError(
            f"{path}: transformers finds no tokenizer there ({reason}); copy the tokenizer's files (tokenizer.json and "
            "tokenizer_config.json) beside the model."
        ) from error
    if chat_template is not None:
        check_control_tokens(tokenizer, chat_template)
        tokenizer.chat_template = chat_template
    return tokenizer


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], max_length: int | None
) -> RenderedConversation:
    """Render and mark one conversation, cut on the right to `max_length` tokens.

    The template writes the beginning-of-sequence token, so the tokenizer must not add a second one.
    """
    encoded = _apply_template(tokenizer, messages, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    assert len(ids) == len(mask)
    if tokenizer.bos_token_id is not None and ids[:2].count(tokenizer.bos_token_id) > 1:
        raise UserError(
            f"a conversation starts with {tokenizer.bos_token} twice: its first message begins with "
            f"{messages[0]['content'][:40]!r}, or the chat template and the tokenizer both write it."
        )
    labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)]
    truncated = max_length is not None and len(ids) > max_length
    return RenderedConversation(ids[:max_length], labels[:max_length], truncated)


def _apply_template(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], **how: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=True, **how)
    except TemplateError as error:
        raise UserError(
            f"the chat template refuses the conversation that begins with {messages[0]['content'][:40]!r}: {error}. "
            "Leave such rows out, or choose another chat_template."
        ) from error


def rendered_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    """The text whose tokens `render` gives."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False))


def render_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[dict[str, str]],
    chosen: str,
    rejected: str,
    max_length: int | None,
) -> RenderedPair:
    """Render two answers to one prompt, each sequence cut on the right to `max_length` tokens.

    The prompt ends with the template's generation prompt, as it will when the model is asked. Raises
    :class:`UserError` when the template writes a prompt that is no token prefix of prompt and answer.
    """
    prompt_ids: list[int] = _apply_template(tokenizer, prompt, add_generation_prompt=True)["input_ids"]
    answers = [
        render(tokenizer, [*prompt, {"role": "assistant", "content": answer}], None).input_ids
        for answer in (chosen, rejected)
    ]
    for ids in answers:
        if ids[: len(prompt_ids)] != prompt_ids:
            raise UserError(
                "the chat template's prompt (add_generation_prompt) is no token prefix of prompt and answer, at "
                f"{prompt[-1]['content'][:40]!r}: the answer would be scored from another place than it is generated "
                "from. Choose another chat_template."
            )
    kept = [ids[len(prompt_ids) : max_length] for ids in answers]
    truncated = max_length is not None and max(map(len, answers)) > max_length
    return RenderedPair(prompt_ids[:max_length], kept[0], kept[1], truncated)

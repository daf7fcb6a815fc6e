"""Conversations as token ids, rendered by the run's chat template, with the assistant's tokens marked."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from deita_train.data.control_tokens import EncodedText, Span, check_control_tokens, control_tokens, encode, token_ids
from deita_train.data.row_refusal import RowRefused
from deita_train.data.stated_ends import add_stated_ends
from deita_train.data.template_text import Message, rendered_text
from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.remote_code import own_code

IGNORED = -100


@dataclass(frozen=True)
class RenderedConversation:
    """One conversation as the model reads it.

    Attributes:
        input_ids: [T].
        labels: [T]; the token's id in an assistant span (its content and end-of-turn token), -100 elsewhere.
        truncated: whether tokens beyond the limit were cut off on the right.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool


@dataclass(frozen=True)
class RenderedPair:
    """The token ids of a prompt, up to where the assistant begins, and of two answers, each with its end of turn.

    `truncated` says whether prompt plus answer was cut on the right.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    truncated: bool

    @property
    def differs(self) -> bool:
        """Whether both answers have tokens left and differ; otherwise there is nothing to train on or measure."""
        return bool(self.chosen_ids and self.rejected_ids) and self.chosen_ids != self.rejected_ids


def load_tokenizer(path: str, chat_template: str | None = None, *, trust_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, with the run's chat template instead of its own.

    It adds to a text what its settings state, `add_bos_token` and `add_eos_token`, which transformers ignores.

    Args:
        path: the folder.
        chat_template: the template's text; None keeps the tokenizer's own.
        trust_code: whether Python code in the folder may run.

    Raises:
        UserError: the folder holds no usable tokenizer, or the tokenizer lacks a control token of the template.
    """
    try:
        with own_code(path, trust_code):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_code)
        add_stated_ends(tokenizer, path)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise_machine_fault(error, path)
        reason = str(error).strip().splitlines()[0].rstrip(".: ")
        raise UserError(
            f"{path}: transformers finds no tokenizer there ({reason}); copy the tokenizer's files (tokenizer.json and "
            "tokenizer_config.json) into the model's folder."
        ) from error
    if chat_template is not None:
        check_control_tokens(tokenizer, chat_template)
        tokenizer.chat_template = chat_template
    return tokenizer


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    max_length: int | None,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    labelled: bool = True,
) -> RenderedConversation:
    """Render and mark one conversation, cut on the right to `max_length` tokens.

    The template writes the beginning-of-sequence token, so the tokenizer must not add another. A control token spelled
    in a message stays text. With `labelled` false no answer is looked for.

    Raises:
        RowRefused: the template cannot write the conversation.
        UserError: it writes the beginning of the sequence twice.
    """
    rendered = rendered_text(tokenizer, messages, tools=tools, labelled=labelled)
    if labelled:
        encoded = encode(tokenizer, rendered.text, rendered.literals, add_special_tokens=False)
        ids, mask = encoded.ids, _inside(encoded, rendered.answers, control_tokens(tokenizer).ids)
        labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)]
    else:
        ids = token_ids(tokenizer, rendered.text, rendered.literals, add_special_tokens=False)
        labels = [IGNORED] * len(ids)
    if tokenizer.bos_token_id is not None and ids[:2].count(tokenizer.bos_token_id) > 1:
        raise UserError(f"a conversation starts with {tokenizer.bos_token} twice; fix the chat template.")
    truncated = max_length is not None and len(ids) > max_length
    return RenderedConversation(ids[:max_length], labels[:max_length], truncated)


def _inside(encoded: EncodedText, answers: Sequence[Span], control: Collection[int]) -> list[bool]:
    """For each token whether it is part of an answer.

    Tokens that only overlap an answer's ends are, except a control token before it, which may take in the white space
    with which the answer begins.
    """
    starts, ends = [start for start, _ in encoded.offsets], [end for _, end in encoded.offsets]
    mask = [False] * len(encoded.ids)
    for start, end in answers:
        first, beyond = bisect_right(ends, start), bisect_left(starts, end)
        while first < beyond and starts[first] < start and encoded.ids[first] in control:
            first += 1
        mask[first:beyond] = [True] * (beyond - first)
    return mask


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """The token ids of messages up to where the assistant begins to write.

    Raises:
        RowRefused: the template cannot write them.
    """
    asked = rendered_text(tokenizer, prompt, tools=tools, add_generation_prompt=True, labelled=False)
    return token_ids(tokenizer, asked.text, asked.literals, add_special_tokens=False)


def render_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    chosen: Message | str,
    rejected: Message | str,
    max_length: int | None,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> RenderedPair:
    """Render two answers to one prompt, each sequence cut on the right to `max_length` tokens.

    The answers are messages of the assistant, or their texts.

    The prompt ends with the template's generation prompt, as at inference.

    Raises:
        RowRefused: the template cannot write the pair, or the tokens of the prompt are not a prefix of those of prompt
            plus answer.
    """
    prompt_ids = render_prompt(tokenizer, prompt, tools=tools)
    answers = [
        render(tokenizer, [*prompt, _answer(answer)], None, tools=tools, labelled=False).input_ids
        for answer in (chosen, rejected)
    ]
    for ids in answers:
        if ids[: len(prompt_ids)] != prompt_ids:
            raise RowRefused(
                "prompt_not_prefix",
                "the tokens of the prompt (add_generation_prompt) do not begin those of prompt plus answer, so the "
                "answer would be scored from a different position than it is generated from",
            )
    kept = [ids[len(prompt_ids) : max_length] for ids in answers]
    truncated = max_length is not None and max(map(len, answers)) > max_length
    return RenderedPair(prompt_ids[:max_length], kept[0], kept[1], truncated)


def _answer(answer: Message | str) -> Message:
    return {"role": "assistant", "content": answer} if isinstance(answer, str) else answer

"""Conversations as token ids, rendered by the run's chat template, with the assistant's tokens marked."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from deita_train.data.control_tokens import Span, check_control_tokens, control_tokens, encode, replaced
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
class RenderedText:
    """A conversation rendered by the template.

    Attributes:
        text: the rendered text.
        literals: where `text` spells a control token as part of a message.
        answers: where the assistant's words and end-of-turn tokens are.
    """

    text: str
    literals: list[Span]
    answers: list[Span]


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
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], max_length: int | None
) -> RenderedConversation:
    """Render and mark one conversation, cut on the right to `max_length` tokens.

    The template writes the beginning-of-sequence token, so the tokenizer must not add another. A control token spelled
    in a message stays text.
    """
    ids, mask = _encoded(tokenizer, messages)
    assert len(ids) == len(mask)
    if tokenizer.bos_token_id is not None and ids[:2].count(tokenizer.bos_token_id) > 1:
        raise UserError(f"a conversation starts with {tokenizer.bos_token} twice; fix the chat template.")
    labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)]
    truncated = max_length is not None and len(ids) > max_length
    return RenderedConversation(ids[:max_length], labels[:max_length], truncated)


def _encoded(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and for each whether the assistant writes it."""
    rendered = rendered_text(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    encoded = encode(tokenizer, rendered.text, rendered.literals, add_special_tokens=False)
    return encoded.ids, _inside(encoded.offsets, rendered.answers)


def _inside(offsets: Sequence[Span], answers: Sequence[Span]) -> list[bool]:
    """For each token whether it is part of an answer, including tokens that only overlap its ends."""
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    mask = [False] * len(offsets)
    for start, end in answers:
        first, beyond = bisect_right(ends, start), bisect_left(starts, end)
        mask[first:beyond] = [True] * (beyond - first)
    return mask


def rendered_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False
) -> RenderedText:
    """The text behind the tokens of `render`.

    Raises:
        UserError: the template refuses the conversation.
    """
    control = control_tokens(tokenizer)
    contents = [message["content"] for message in messages]
    names: dict[str, str] = {}
    if any(control.spans(content) for content in contents):
        contents, names = control.hide(contents)
    filled = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
    try:
        text, answers = _filled(tokenizer, filled, add_generation_prompt)
    except TemplateError as error:
        raise UserError(
            f"the chat template refuses the conversation that begins with {messages[0]['content'][:40]!r}: {error}. "
            "Leave such rows out, or choose another chat_template."
        ) from error
    if not names:
        return RenderedText(text, [], answers)
    changes = [(place, place + 1, names[character]) for place, character in enumerate(text) if character in names]
    whole, places, _ = replaced(text, changes)
    literals = [(places[start], places[end]) for start, end, _ in changes]
    return RenderedText(whole, literals, [(places[start], places[end]) for start, end in answers])


def _filled(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], add_generation_prompt: bool
) -> tuple[str, list[Span]]:
    names: Any = tokenizer.special_tokens_map
    # Annotated for one text; it returns a list of texts and, for each, the spans between the generation markers.
    rendered: Any = render_jinja_template(
        [messages],
        chat_template=tokenizer.get_chat_template(),
        return_assistant_tokens_mask=True,
        add_generation_prompt=add_generation_prompt,
        **names,
    )
    (text,), (answers,) = rendered
    return text, answers


def render_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[dict[str, str]],
    chosen: str,
    rejected: str,
    max_length: int | None,
) -> RenderedPair:
    """Render two answers to one prompt, each sequence cut on the right to `max_length` tokens.

    The prompt ends with the template's generation prompt, as at inference.

    Raises:
        UserError: the tokens of the prompt are not a prefix of those of prompt plus answer.
    """
    prompt_ids, _ = _encoded(tokenizer, prompt, add_generation_prompt=True)
    answers = [
        render(tokenizer, [*prompt, {"role": "assistant", "content": answer}], None).input_ids
        for answer in (chosen, rejected)
    ]
    for ids in answers:
        if ids[: len(prompt_ids)] != prompt_ids:
            raise UserError(
                "the chat template's prompt (add_generation_prompt) is not a token prefix of prompt plus answer, at "
                f"{prompt[-1]['content'][:40]!r}: the answer would be scored from a different position than it is "
                "generated from. Choose another chat_template."
            )
    kept = [ids[len(prompt_ids) : max_length] for ids in answers]
    truncated = max_length is not None and max(map(len, answers)) > max_length
    return RenderedPair(prompt_ids[:max_length], kept[0], kept[1], truncated)

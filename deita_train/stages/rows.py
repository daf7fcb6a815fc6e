"""Token ids and labels of one row, as a stage's preparation writes them and `inspect` shows them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from deita_train.data.as_text import conversation_as_text
from deita_train.data.conversations import user_turns
from deita_train.data.rendering import IGNORED, RenderedPair, render, render_pair, render_prompt
from deita_train.data.row_refusal import WRITABLE_AS_TEXT, RowRefused
from deita_train.data.template_text import Message, rendered_text
from deita_train.errors import UserError
from deita_train.evaluation.dialogues import dialogue
from deita_train.scoring.prompts import PromptEncoder, PromptIds
from deita_train.scoring.training_pairs import ScorerExample
from deita_train.training.rows import LabelledRow

UnsupportedFields = Literal["drop", "text"]
ANY_ANSWER = "(the model's own answer)"
"""In place of an answer that is not known yet."""
Tools = Sequence[Mapping[str, Any]] | None


def _count_nothing() -> None:
    """For callers that do not ask how many rows are written as text."""


def text_row(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], max_length: int | None) -> LabelledRow:
    """A conversation as pretraining text: every token is a label.

    Raises:
        RowRefused: the template cannot write it.
    """
    rendered = render(tokenizer, row["messages"], max_length, tools=row.get("tools"))
    return LabelledRow(row["id"], rendered.input_ids, rendered.input_ids, rendered.truncated)


def conversation_row(
    tokenizer: PreTrainedTokenizerBase,
    row: Mapping[str, Any],
    max_length: int | None,
    *,
    unsupported_fields: UnsupportedFields = "drop",
    labelled: bool = True,
    on_text: Callable[[], None] = _count_nothing,
) -> LabelledRow:
    """A conversation, with labels on the assistant's tokens if `labelled`.

    With ``unsupported_fields="text"``, what the template does not know (reasoning, tool calls, other roles) is written
    as text where the template refuses the conversation as it is; `on_text` is called for such a row once it is written.

    Raises:
        RowRefused: the template cannot write it.
    """
    asked = row["messages"]
    messages, tools = writable(tokenizer, asked, row.get("tools"), unsupported_fields)
    rendered = render(tokenizer, messages, max_length, tools=tools, labelled=labelled)
    if messages is not asked:
        on_text()
    return LabelledRow(row["id"], rendered.input_ids, rendered.labels, rendered.truncated)


def question_prompts(tokenizer: PreTrainedTokenizerBase, question: Mapping[str, Any]) -> list[list[int]]:
    """The tokens up to each answer of a question, with `ANY_ANSWER` for those to earlier turns.

    Raises:
        RowRefused: the template cannot write one of its turns.
    """
    return [render_prompt(tokenizer, messages) for messages in question_dialogues(question)]


def question_dialogues(question: Mapping[str, Any]) -> list[tuple[Message, ...]]:
    """The messages before each answer of a question."""
    return [dialogue(question, [ANY_ANSWER] * turn) for turn in range(len(question["turns"]))]


def answers_alone(row: LabelledRow) -> list[LabelledRow]:
    """Each answer of a conversation by itself, after the first token that the template writes.

    An answer is a run of labelled tokens, as far as the conversation was not cut. The first token of a conversation is
    never predicted, so a label on it does not count.
    """
    start = row.input_ids[0]
    return [LabelledRow(row.id, [start, *answer], [IGNORED, *answer]) for answer in answers_of(row)]


def answers_of(row: LabelledRow) -> list[list[int]]:
    """The runs of labelled tokens of a row, ignoring a label on its first token."""
    runs = groupby(row.labels[1:], key=lambda label: label != IGNORED)
    return [list(run) for is_answer, run in runs if is_answer]


def pair_row(
    tokenizer: PreTrainedTokenizerBase,
    row: Mapping[str, Any],
    max_length: int | None,
    *,
    unsupported_fields: UnsupportedFields = "drop",
    on_text: Callable[[], None] = _count_nothing,
) -> RenderedPair:
    """A preference pair: its prompt and both answers; `unsupported_fields` and `on_text` as in `conversation_row`.

    Raises:
        RowRefused: the template cannot write it.
    """
    asked = row["prompt"]
    prompt, chosen, rejected, tools = writable_pair(tokenizer, {**row, "prompt": asked}, unsupported_fields)
    rendered = render_pair(tokenizer, prompt, chosen, rejected, max_length, tools=tools)
    if prompt is not asked:
        on_text()
    return rendered


def writable_pair(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], unsupported_fields: UnsupportedFields
) -> tuple[Sequence[Message], Message, Message, Tools]:
    """A pair's prompt, chosen and rejected answer, and tools: as they are, or as text if either needs it."""
    prompt, tools = row["prompt"], row.get("tools")
    answers = pair_answers(row)
    whole = [writable(tokenizer, [*prompt, answer], tools, unsupported_fields) for answer in answers]
    if any(messages[-1] is not answer for (messages, _), answer in zip(whole, answers, strict=True)):
        chosen, rejected = (conversation_as_text([*prompt, answer], tools) for answer in answers)
        return chosen[:-1], chosen[-1], rejected[-1], None
    return prompt, *answers, tools


def writable(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools,
    unsupported_fields: UnsupportedFields,
) -> tuple[Sequence[Message], Tools]:
    """Messages and tools as they are, or as text if `unsupported_fields` says so and the template cannot write them."""
    if unsupported_fields == "text":
        try:
            rendered_text(tokenizer, messages, tools=tools, labelled=False)
        except RowRefused as refusal:
            if refusal.reason in WRITABLE_AS_TEXT:
                return conversation_as_text(messages, tools), None
    return messages, tools


def pair_answers(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both answers of a preference pair as messages."""
    chosen, rejected = (
        {"role": "assistant", "content": row[name], **(row.get(f"{name}_fields") or {})}
        for name in ("chosen", "rejected")
    )
    return chosen, rejected


def training_encoder(tokenizer: PreTrainedTokenizerBase, dimension: str, max_length: int) -> PromptEncoder:
    """The encoder for training a scorer; reserves two positions for the digit and the end of sequence."""
    return PromptEncoder(tokenizer, dimension, max_length - 2)


def scoring_encoder(tokenizer: PreTrainedTokenizerBase, identity: Mapping[str, Any], max_length: int) -> PromptEncoder:
    """The encoder for scoring; with parity it never shortens."""
    return PromptEncoder(tokenizer, identity["dimension"], max_length, shortens=not identity.get("parity", False))


def scorer_prompt(encoder: PromptEncoder, example: ScorerExample, max_length: int) -> PromptIds:
    """The prompt of a labelled row.

    Raises:
        UserError: `max_length` has no room for it, or for any of the text that is judged.
    """
    prompt = encoder.encode(example.instruction, example.response)
    if prompt is None:
        raise UserError(f"{example.where}: max_length {max_length} has no room for the prompt; raise it")
    if not _is_judged_text_left(example.instruction, example.response, prompt):
        judged = "instruction" if example.response is None else "response"
        raise UserError(
            f"{example.where}: max_length {max_length} leaves nothing of the {judged} that is labelled; raise it, or "
            "remove the row"
        )
    return prompt


def scorer_row(encoder: PromptEncoder, example: ScorerExample, prompt: PromptIds, eos_token_id: int) -> LabelledRow:
    """Prompt, digit and end of sequence; labels on the last two."""
    answer = [encoder.digit_ids[example.score - 1], eos_token_id]
    labels = [IGNORED] * len(prompt.input_ids) + answer
    return LabelledRow(example.where, prompt.input_ids + answer, labels, prompt.shortened)


@dataclass(frozen=True)
class TurnPrompt:
    """One turn as a scorer sees it: its texts and its prompt, or the reason why it cannot be scored."""

    instruction: str
    response: str | None
    prompt: PromptIds | None
    reason: str | None


def turn_prompts(encoder: PromptEncoder, dimension: str, messages: Sequence[Message]) -> Iterator[TurnPrompt]:
    """The prompts of a conversation, one per user turn."""
    for instruction, answer in user_turns(messages):
        response = answer if dimension == "quality" else None
        if dimension == "quality" and response is None:
            yield TurnPrompt(instruction, None, None, "no_response")
            continue
        prompt = encoder.encode(instruction, response)
        reason = _why_unscored(encoder, instruction, response, prompt)
        yield TurnPrompt(instruction, response, prompt if reason is None else None, reason)


def _why_unscored(
    encoder: PromptEncoder, instruction: str, response: str | None, prompt: PromptIds | None
) -> str | None:
    """A prompt that is too long, or of which the text that is judged was cut off whole: its score would be noise."""
    if prompt is None:
        return f"prompt_longer_than_{'max_length' if encoder.shortens else 'context'}"
    if not _is_judged_text_left(instruction, response, prompt):
        return f"{'instruction' if response is None else 'response'}_beyond_max_length"
    return None


def _is_judged_text_left(instruction: str, response: str | None, prompt: PromptIds) -> bool:
    """Whether anything is left of the response, or without one of the instruction; an empty text has lost nothing."""
    asked, left = (instruction, prompt.instruction) if response is None else (response, prompt.response)
    return bool((left or "").strip()) or not asked.strip()

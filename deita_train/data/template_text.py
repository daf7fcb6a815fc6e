"""What a chat template makes of a conversation: its text, where the assistant's words are, and what it cannot write."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from deita_train.data.answer_marks import marked_answers
from deita_train.data.control_tokens import ControlTokens, Span, control_tokens, replaced
from deita_train.data.conversations import is_trained
from deita_train.data.messages import Message
from deita_train.data.row_refusal import RowRefused

_REASONING = ("reasoning_content", "thinking", "reasoning")
_END_OF_REASONING = "</think>"
# What a template may raise besides its own errors when a message is not what it expects.
_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError)


@dataclass(frozen=True)
class RenderedText:
    """A conversation rendered by the template.

    Attributes:
        text: the rendered text.
        literals: where `text` spells a control token as part of a message.
        answers: where the trained assistant's words and end-of-turn tokens are.
    """

    text: str
    literals: list[Span]
    answers: list[Span]


def rendered_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    labelled: bool = True,
) -> RenderedText:
    """Render a conversation by the tokenizer's chat template.

    Control tokens that messages spell are hidden from the template, so that they stay text. The answers are where the
    template marks them (``{% generation %}``); a template without marks is rendered up to before and up to after each
    answer, and must begin the whole conversation with both.

    Args:
        tokenizer: with the template.
        messages: objects with `role`, `content`, and whatever else the template reads.
        tools: the schemas of the conversation's tools.
        add_generation_prompt: whether the text ends where the assistant begins to write.
        labelled: whether the answers are wanted; else they may be empty.

    Raises:
        RowRefused: the template cannot write this conversation, or leaves out what it holds.
    """
    control = control_tokens(tokenizer)
    shown, names = _hidden(control, {"messages": [_as_read(message) for message in messages], "tools": tools or None})
    template = _Template(tokenizer, shown["tools"])
    given: list[dict[str, Any]] = shown["messages"]
    text, answers = template.fill(given, add_generation_prompt=add_generation_prompt)
    _check_written(template, given, text, add_generation_prompt)
    if labelled and not template.is_marked:
        answers = _found_answers(template, control, given, text)
    if labelled:
        answers = _trained_answers(given, answers)
    if not names:
        return RenderedText(text, [], answers)
    changes = [(place, place + 1, names[character]) for place, character in enumerate(text) if character in names]
    whole, places, _ = replaced(text, changes)
    literals = [(places[start], places[end]) for start, end, _ in changes]
    return RenderedText(whole, literals, [(places[start], places[end]) for start, end in answers])


class _Template:
    """The chat template of a tokenizer, for conversations with these tools."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]] | None) -> None:
        self.text: str = tokenizer.get_chat_template()
        self.is_marked = bool(marked_answers(self.text))
        self.tools = tools
        # Without one, a template that writes it unasked would fail.
        self._names: dict[str, Any] = {"bos_token": "", **tokenizer.special_tokens_map}

    def fill(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, with_tools: bool = True
    ) -> tuple[str, list[Span]]:
        """The text, and the spans between the template's marks.

        Raises:
            RowRefused: the template fails.
        """
        try:
            # Annotated for one text; it returns a list of texts and, for each, the marked spans.
            rendered: Any = render_jinja_template(
                [[dict(message) for message in messages]],
                tools=[dict(tool) for tool in self.tools] if self.tools and with_tools else None,
                chat_template=self.text,
                return_assistant_tokens_mask=self.is_marked,
                add_generation_prompt=add_generation_prompt,
                **self._names,
            )
        except _FAILURES as error:
            raise RowRefused("refused_by_template", f"the template says: {error}") from error
        (text,), spans = rendered
        return text, spans[0] if self.is_marked else []

    def changes_without(self, messages: Sequence[Message], fields: Sequence[str], text: str, prompt: bool) -> bool:
        """Whether leaving out these fields of all messages (or `tools`) changes the text."""
        left = [{name: value for name, value in message.items() if name not in fields} for message in messages]
        try:
            changed, _ = self.fill(left, add_generation_prompt=prompt, with_tools="tools" not in fields)
        except RowRefused:
            return True
        return changed != text


def _as_read(message: Message) -> dict[str, Any]:
    """A message as templates expect it: no null fields, and tool calls' arguments as objects."""
    given = {name: value for name, value in message.items() if value is not None}
    if given.get("tool_calls"):
        given["tool_calls"] = [_with_object(call) for call in given["tool_calls"]]
    return given


def _with_object(call: Any) -> Any:
    """A tool call whose arguments, often kept as JSON text, are the object that the text says."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _hidden(control: ControlTokens, value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The texts of messages and tools with each control token's name as one character, and those characters' names."""
    texts = list(_texts(value))
    if not any(control.spans(text) for text in texts):
        return value, {}
    hidden, names = control.hide(texts)
    following = iter(hidden)
    return _mapped(value, lambda _: next(following)), names


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(_texts(inner) for name, inner in value.items() if name != "role")
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_texts, value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text that `_texts` yields, in its order, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: inner if name == "role" else _mapped(inner, change) for name, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list | tuple) else value


def _check_written(template: _Template, messages: Sequence[Message], text: str, prompt: bool) -> None:
    """Refuse a conversation of which the template leaves something out."""
    for number, message in enumerate(messages, start=1):
        # Templates may leave out the reasoning of earlier turns that is part of the text.
        words = message["content"].rpartition(_END_OF_REASONING)[2].strip()
        if words not in text:
            raise RowRefused(
                "text_not_written", f"the template does not write the text of message {number} ({message['role']})"
            )
    fields = {name for message in messages for name in message}
    kinds = {
        "reasoning": [name for name in _REASONING if name in fields],
        "tool_calls": ["tool_calls"] if "tool_calls" in fields else [],
        "tools": ["tools"] if template.tools else [],
    }
    for kind, names in kinds.items():
        if names and not template.changes_without(messages, names, text, prompt):
            raise RowRefused("fields_not_written", f"the template does not write the conversation's {kind}")


def _found_answers(template: _Template, control: ControlTokens, messages: Sequence[Message], text: str) -> list[Span]:
    """The answers of a template without marks, from what it writes before and after each."""
    found = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            before, _ = template.fill(messages[:place], add_generation_prompt=True)
            after, _ = template.fill(messages[: place + 1])
            if not (text.startswith(after) and after.startswith(before)):
                raise RowRefused(
                    "answers_not_found",
                    "the chat template does not mark what the assistant writes ({% generation %}), and what it writes "
                    f"up to message {place + 1} changes with what follows, so the answers cannot be found",
                )
            found.append((len(before), _end_of_turn(control, after, len(before))))
    return found


def _end_of_turn(control: ControlTokens, text: str, start: int) -> int:
    """Where an answer that begins at `start` ends: after its last control token if only white space follows, which
    belongs to the template."""
    ends = [end for _, end in control.spans(text) if end > start]
    return ends[-1] if ends and not text[ends[-1] :].strip() else len(text)


def _trained_answers(messages: Sequence[Message], answers: list[Span]) -> list[Span]:
    """The answers without those that the row excludes from training."""
    written = [message for message in messages if message["role"] == "assistant"]
    if all(map(is_trained, written)):
        return answers
    spans = _joined(answers)
    if len(spans) != len(written):
        raise RowRefused(
            "answer_not_separable",
            f"of {len(written)} answers some are not to be trained, and the template marks {len(spans)} spans",
        )
    return [span for span, message in zip(spans, written, strict=True) if is_trained(message)]


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Spans of which one begins where the other ends, as one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif end > start:
            joined.append((start, end))
    return joined

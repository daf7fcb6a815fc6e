"""What a chat template makes of a conversation: its text, where the assistant's words are, and what it cannot write."""

import json
import re
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
_START_OF_REASONING, _END_OF_REASONING = "<think>", "</think>"
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
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[str, list[Span]]:
        """The text, and the spans between the template's marks; with these tools instead of the conversation's.

        Raises:
            RowRefused: the template fails.
        """
        try:
            # Annotated for one text; it returns a list of texts and, for each, the marked spans.
            rendered: Any = render_jinja_template(
                [[dict(message) for message in messages]],
                tools=[dict(tool) for tool in tools or self.tools or ()] or None,
                chat_template=self.text,
                return_assistant_tokens_mask=self.is_marked,
                add_generation_prompt=add_generation_prompt,
                **self._names,
            )
        except _FAILURES as error:
            raise RowRefused("refused_by_template", f"the template says: {error}") from error
        (text,), spans = rendered
        return text, spans[0] if self.is_marked else []


def _as_read(message: Message) -> dict[str, Any]:
    """A message as templates expect it: no empty fields, and tool calls' arguments as objects.

    Many data sets give every message an empty list of calls or an empty reasoning, which says nothing.
    """
    given = {name: value for name, value in message.items() if name == "content" or not _is_empty(value)}
    if "tool_calls" in given:
        given["tool_calls"] = [_with_object(call) for call in given["tool_calls"]]
    return given


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and len(value) == 0)


def _with_object(call: Any) -> Any:
    """A tool call whose arguments, often kept as JSON text, are the object that the text says."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _with_object(call["function"])}
    try:
        arguments = json.loads(call["arguments"]) if isinstance(call.get("arguments"), str) else None
    except (ValueError, RecursionError):
        return call
    return {**call, "arguments": arguments} if isinstance(arguments, dict) else call


def _hidden(control: ControlTokens, value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The texts of messages and tools with each control token's name as one character, and those characters' names.

    The names of their fields are texts too: a tool's parameter may be called anything.
    """
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
        yield from chain.from_iterable(chain(_texts(name), _texts(inner)) for name, inner in value.items())
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_texts, value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text that `_texts` yields, in its order, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(name, change): _mapped(inner, change) for name, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list | tuple) else value


def _check_written(template: _Template, messages: Sequence[Message], text: str, prompt: bool) -> None:
    """Refuse a conversation of which the template leaves something out."""
    last_question = _last_question(messages)
    for number, message in enumerate(messages, start=1):
        if any(words not in text for words in _words(message, is_earlier=number <= last_question)):
            raise RowRefused(
                "text_not_written", f"the template does not write the text of message {number} ({message['role']})"
            )
    named, fields = _named_fields(messages, template.tools, last_question)
    if not fields:
        return
    try:
        written, _ = template.fill(named["messages"], tools=named["tools"], add_generation_prompt=prompt)
    except RowRefused:
        return  # it reads the fields, and knows what may stand there
    lost = next((field for name, field in fields.items() if name not in written), None)
    if lost is not None:
        raise RowRefused("fields_not_written", f"the template does not write {lost}")


def _last_question(messages: Sequence[Message]) -> int:
    """The number of the last message of the user, counted from 1; 0 if there is none."""
    return max((number for number, message in enumerate(messages, start=1) if message["role"] == "user"), default=0)


def _words(message: Message, *, is_earlier: bool) -> list[str]:
    """The parts of a message's text that a template has to write; reasoning may end a turn's first part.

    Templates may leave out the reasoning of the assistant's earlier turns, as the model is not shown it either.
    """
    content: str = message["content"]
    if message["role"] != "assistant" or _END_OF_REASONING not in content:
        return [content.strip()]
    if is_earlier:
        return [content.rpartition(_END_OF_REASONING)[2].strip()]
    thought, *said = content.split(_END_OF_REASONING)
    return [part.strip() for part in (*thought.split(_START_OF_REASONING), *said)]


def _named_fields(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, last_question: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The same conversation with a name of its own in each field that a template has to write, and what each names.

    One rendering of it shows every field that is left out, of every message.
    """
    fields: dict[str, str] = {}

    def name(field: str) -> str:
        fields[f"field_{len(fields)}_of_the_row"] = field
        return f"field_{len(fields) - 1}_of_the_row"

    named_messages = []
    for number, message in enumerate(messages, start=1):
        named = dict(message)
        for field in _REASONING:
            if field in message and number > last_question:
                named[field] = name(f"the reasoning of message {number}")
        if "tool_calls" in message:
            field = f"a tool call of message {number}"
            named["tool_calls"] = [_named(call, name, field) for call in message["tool_calls"]]
        named_messages.append(named)
    named_tools = [_named(tool, name, "the conversation's tools") for tool in tools or ()]
    return {"messages": named_messages, "tools": named_tools}, fields


def _named(tool: Any, name: Callable[[str], str], field: str) -> Any:
    """A tool, or a call of one, with another name, and of a call another value beside its arguments."""
    if not isinstance(tool, Mapping):
        return name(field)
    if isinstance(tool.get("function"), Mapping):
        return {**tool, "function": _named(tool["function"], name, field)}
    named = {**tool, "name": name(field)}
    if isinstance(tool.get("arguments"), Mapping):
        named["arguments"] = {**tool["arguments"], name(field): 1}
    elif "arguments" in tool:
        named["arguments"] = name(field)
    return named


def _found_answers(template: _Template, control: ControlTokens, messages: Sequence[Message], text: str) -> list[Span]:
    """The answers of a template without marks, from what it writes before and after each."""
    found = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            after, _ = template.fill(messages[: place + 1])
            start = _start_of_answer(template, messages[:place], message, after)
            if start is None or not text.startswith(after):
                raise RowRefused(
                    "answers_not_found",
                    f"it does not mark what the assistant writes, and what it writes up to message {place + 1} changes "
                    "with what follows, so the answers cannot be found",
                )
            found.append((start, _end_of_turn(control, after, start)))
    return found


def _start_of_answer(template: _Template, before: Sequence[Message], answer: Message, text: str) -> int | None:
    """Where an answer begins in a text that ends with it: behind what the template writes to ask for it.

    Many templates cannot write an empty conversation, so an answer that begins one is behind the same header as any
    other.
    """
    if before:
        asked, _ = template.fill(before, add_generation_prompt=True)
        return len(asked) if text.startswith(asked) else None
    question: list[Message] = [{"role": "user", "content": "?"}]
    asked, _ = template.fill(question, add_generation_prompt=True)
    header = asked.removeprefix(template.fill(question)[0])
    places = list(re.finditer(rf"{re.escape(header)}\s*{re.escape(answer['content'].strip())}", text))
    return places[0].start() + len(header) if len(places) == 1 else None


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

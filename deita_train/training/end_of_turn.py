"""The tokens at which a trained model stops generating: its end of sequence, and its template's end of turn."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from deita_train.data.answer_marks import marked_answers, with_answers_between
from deita_train.data.control_tokens import control_tokens
from deita_train.data.messages import Message
from deita_train.data.rendering import IGNORED, render
from deita_train.data.row_refusal import MARK_THE_ANSWERS, RowRefused
from deita_train.data.template_text import RenderedText, rendered_text
from deita_train.data.training_templates import name_of_training_form
from deita_train.errors import UserError

GENERATION_CONFIG = "generation_config.json"


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase, answers: Iterable[Sequence[int]]) -> list[int]:
    """Collect the control tokens that end answers.

    Args:
        tokenizer: The tokenizer that rendered them.
        answers: The trained token ids of each answer.

    Returns:
        The last control token of each answer (whitespace may follow it), without duplicates, in order of appearance.
    """
    control = control_tokens(tokenizer).ids
    ends = (next((token for token in reversed(answer) if token in control), None) for answer in answers)
    return list(dict.fromkeys(token for token in ends if token is not None))


def check_answer_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check on a few conversations that the template trains each answer, with its end and without its header.

    Raises:
        UserError: it does not; with what to do.
    """
    for probe in _PROBES:
        try:
            rendered = rendered_text(tokenizer, probe)
        except RowRefused as refusal:
            if refusal.reason == "answers_not_found" and probe is _PROBES[0]:
                raise UserError(f"{refusal.detail}; {MARK_THE_ANSWERS}.") from refusal
            continue  # a template for other conversations; its rows are checked one by one
        _check_places(tokenizer, probe, rendered)
        _check_headers(tokenizer, probe, rendered)
        _check_ends(tokenizer, probe)


_QUESTIONS: tuple[Message, ...] = ({"role": "user", "content": "How are you?"}, {"role": "user", "content": "Good."})
_CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "Oslo"}}}
_PROBES: tuple[tuple[Message, ...], ...] = (
    (
        _QUESTIONS[0],
        {"role": "assistant", "content": "Fine."},
        _QUESTIONS[1],
        {"role": "assistant", "content": "Yes."},
    ),
    # White space at an answer's ends is what a template may take away behind the marks.
    (
        _QUESTIONS[0],
        {"role": "assistant", "content": "\n\n  Fine.  \n"},
        _QUESTIONS[1],
        {"role": "assistant", "content": "\n Yes. \n"},
    ),
    (
        _QUESTIONS[0],
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "look", "content": "Rain."},
        {"role": "assistant", "content": "Yes."},
    ),
)


def _check_places(tokenizer: PreTrainedTokenizerBase, probe: Sequence[Message], rendered: RenderedText) -> None:
    """Compare where transformers says the marked answers are with where they are."""
    template: str = tokenizer.get_chat_template()
    if not marked_answers(template):
        return
    # Two characters that no template writes.
    start, end = "\U00100000", "\U00100001"
    around: Any = tokenizer.apply_chat_template(
        [dict(message) for message in probe], chat_template=with_answers_between(template, start, end), tokenize=False
    )
    marked = set(chain.from_iterable(range(*span) for span in rendered.answers))
    said = [(character, place in marked) for place, character in enumerate(rendered.text)]
    if said != list(_between(around, start, end)):
        raise UserError(
            "its {% generation %} marks stand in a {% set %}, a {% call %}, a {% filter %} or in a macro whose text is "
            "changed before it is written, where transformers cannot place them; put them around what is written."
        )


def _between(text: str, start: str, end: str) -> Iterator[tuple[str, bool]]:
    """Each character of a text but the two, and whether it stands between them."""
    depth = 0
    for character in text:
        if character in (start, end):
            depth += 1 if character == start else -1
        else:
            yield character, depth > 0


def _check_headers(tokenizer: PreTrainedTokenizerBase, probe: Sequence[Message], rendered: RenderedText) -> None:
    """Check that no answer begins with the header that asks for it."""
    if name_of_training_form(tokenizer.get_chat_template()) is not None:
        return  # trl's own; that of gpt-oss, for one, has to train its header, which names the channel
    for place, message in enumerate(probe):
        if message["role"] != "assistant":
            continue
        asked, prompt = (
            rendered_text(tokenizer, probe[:place], add_generation_prompt=with_header, labelled=False).text.rstrip()
            for with_header in (False, True)
        )
        begun = [
            rendered.text[start:end]
            for start, end in rendered.answers
            if len(rendered.text[:start].rstrip()) <= len(asked) < end
        ]
        has_header = bool(begun) and (len(asked) < len(prompt) or not _begins_with(begun[0], message))
        if has_header:
            raise UserError(
                "it marks the header of the assistant's turn as the assistant's words, so the model would learn to "
                "write it; put {% generation %} behind the header."
            )


def _begins_with(answer: str, message: Message) -> bool:
    """Whether nothing but empty reasoning stands before a message's text; of a message with calls, True."""
    before = answer.partition(message["content"].strip())[0]
    return "tool_calls" in message or not before.replace("<think>", "").replace("</think>", "").strip()


def _check_ends(tokenizer: PreTrainedTokenizerBase, probe: Sequence[Message]) -> None:
    """Check that the last token of each answer that is not white space is a control token."""
    rendered = render(tokenizer, probe, None)
    control = control_tokens(tokenizer).ids
    runs = groupby(zip(rendered.input_ids, rendered.labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    for is_answer, run in runs:
        if is_answer and not _ends_turn(tokenizer, [token for token, _ in run], control):
            raise UserError(
                "it does not mark the token that ends an answer, so the model would never learn to stop; put the "
                "end-of-turn token before {% endgeneration %}."
            )


def _ends_turn(tokenizer: PreTrainedTokenizerBase, answer: Sequence[int], control: Collection[int]) -> bool:
    """Whether the last token that is not white space is a control token."""
    last = next(
        (token for token in reversed(answer) if token in control or str(tokenizer.decode([token])).strip()), None
    )
    return last in control


def stop_at(model_dir: Path, token_ids: Sequence[int]) -> None:
    """Add stop tokens to a saved model's generation config. The file is left alone if it has them all."""
    path = model_dir / GENERATION_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    own = config.get("eos_token_id")
    if own is None:  # transformers then uses the model's configuration
        own = json.loads((model_dir / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
    stops = [own] if isinstance(own, int) else own or []
    added = [token for token in token_ids if token not in stops]
    if added:
        config["eos_token_id"] = [*stops, *added]
        # With this mark, transformers 4 may rebuild the file from the model's configuration.
        config.pop("_from_model_config", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

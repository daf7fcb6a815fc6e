"""One row as a stage gives it to the model: text, tokens, what is trained or measured, and what is cut.

The ids and labels come from the functions with which the stages themselves prepare their rows (`stages/rows.py`).
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from deita_train.data.rendering import RenderedPair
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.data.token_text import TokenText, control_token, token_texts
from deita_train.scoring.prompts import DIGITS, PromptEncoder, PromptIds, literal_spans, prompt_parts
from deita_train.scoring.training_pairs import ScorerExample
from deita_train.stages.inspection.row_view import Segment, ShownToken, TokenSequence
from deita_train.stages.kinds import STAGE_KINDS, RowForm, ShownRows
from deita_train.stages.rows import (
    Tools,
    TurnPrompt,
    UnsupportedFields,
    conversation_row,
    pair_row,
    question_dialogues,
    question_prompts,
    scorer_prompt,
    scorer_row,
    scoring_encoder,
    text_row,
    training_encoder,
    turn_prompts,
    writable,
    writable_pair,
)
from deita_train.training.rows import LabelledRow, loss_mask

Row = Any  # of a table: a mapping; of a scorer's labelled data: a ScorerExample


@dataclass(frozen=True)
class InspectedStage:
    """A stage with the tokenizer that encodes its rows, which holds the run's chat template."""

    kind: str
    identity: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase

    @property
    def max_length(self) -> int | None:
        """The length at which the stage cuts or shortens its rows; None if it does neither."""
        length: int | None = self.identity["max_length"]
        return length

    @property
    def unsupported_fields(self) -> UnsupportedFields:
        """What becomes of a row that the template cannot write."""
        stated: UnsupportedFields = self.identity.get("unsupported_fields", "drop")
        return stated

    @property
    def shown(self) -> ShownRows:
        """How its rows are shown."""
        rows = STAGE_KINDS[self.kind].rows
        assert rows is not None
        return rows


def sequences(stage: InspectedStage, row: Row) -> list[TokenSequence]:
    """What the model sees of a row: a conversation, its turns' prompts, or a pair's prompt and answers."""
    return _SEQUENCES[stage.shown.form](stage, row)


def has_loss(stage: InspectedStage, row: Row) -> bool:
    """Whether the stage trains or measures a token of the row; true for stages that do neither."""
    if refusal(stage, row) is not None:
        return False
    if stage.shown.form == "pair":
        return _rendered_pair(stage, row, stage.max_length).differs
    if stage.shown.form in ("text", "conversation") and stage.shown.verb:
        return any(loss_mask(_labelled(stage, row, stage.max_length).labels))
    return True


def refusal(stage: InspectedStage, row: Row) -> str | None:
    """Why the stage's template cannot write the row; None if it can, and for scorers, which have no template."""
    try:
        if stage.shown.form == "pair":
            _rendered_pair(stage, row, None)
        elif stage.shown.form in ("text", "conversation"):
            _labelled(stage, row, None)
        elif stage.shown.form == "question":
            question_prompts(stage.tokenizer, row)
    except RowRefused as refused:
        return str(refused)
    return None


def _labelled(stage: InspectedStage, row: Row, max_length: int | None) -> LabelledRow:
    if stage.shown.form == "text":
        return text_row(stage.tokenizer, row, max_length)
    return conversation_row(
        stage.tokenizer,
        row,
        max_length,
        unsupported_fields=stage.unsupported_fields,
        labelled=bool(stage.shown.verb),
    )


def _rendered_pair(stage: InspectedStage, row: Row, max_length: int | None) -> RenderedPair:
    return pair_row(stage.tokenizer, row, max_length, unsupported_fields=stage.unsupported_fields)


def _conversation(stage: InspectedStage, row: Row) -> list[TokenSequence]:
    whole, kept = _labelled(stage, row, None), _labelled(stage, row, stage.max_length)
    length = len(kept.input_ids)
    assert (whole.input_ids[:length], whole.labels[:length]) == (kept.input_ids, kept.labels)
    messages, tools = writable(stage.tokenizer, row["messages"], row.get("tools"), stage.unsupported_fields)
    tokens = _tokens(stage, messages, tools, whole.input_ids)
    mask = loss_mask(whole.labels) if stage.shown.verb else [False] * len(tokens)
    return [_cut_sequence("text", tokens, mask, length, stage.max_length)]


def _pair(stage: InspectedStage, row: Row) -> list[TokenSequence]:
    """The prompt, then each answer as it follows the prompt."""
    whole, kept = _rendered_pair(stage, row, None), _rendered_pair(stage, row, stage.max_length)
    prompt_messages, *answers, tools = writable_pair(stage.tokenizer, row, stage.unsupported_fields)
    start = len(whole.prompt_ids)
    shown = []
    for title, answer, ids, left in (
        ("chosen", answers[0], whole.chosen_ids, kept.chosen_ids),
        ("rejected", answers[1], whole.rejected_ids, kept.rejected_ids),
    ):
        assert ids[: len(left)] == left
        tokens = _tokens(stage, [*prompt_messages, answer], tools, whole.prompt_ids + ids)
        if title == "chosen":
            prompt = tokens[:start]
            shown.append(_cut_sequence("prompt", prompt, [False] * start, len(kept.prompt_ids), stage.max_length))
        shown.append(_cut_sequence(title, tokens[start:], [True] * len(ids), len(left), stage.max_length, start))
    return shown


def _question(stage: InspectedStage, row: Row) -> list[TokenSequence]:
    """The prompt of each turn, with `ANY_ANSWER` for what the model will have answered."""
    prompts, dialogues = question_prompts(stage.tokenizer, row), question_dialogues(row)
    shown = []
    for number, (ids, messages) in enumerate(zip(prompts, dialogues, strict=True), start=1):
        tokens = _tokens(stage, messages, None, ids, is_prompt=True)
        mask = [False] * len(tokens)
        title = "text" if len(prompts) == 1 else f"turn {number} of {len(prompts)}"
        is_long = stage.max_length is not None and len(ids) >= stage.max_length
        note = f"not asked: no room for an answer in the model's context of {stage.max_length:,}" if is_long else ""
        shown.append(TokenSequence(title, _joined(_atoms(tokens, mask)), _shown(tokens, mask), len(tokens), note=note))
    return shown


def _tokens(
    stage: InspectedStage,
    messages: Sequence[Mapping[str, Any]],
    tools: Tools,
    input_ids: Sequence[int],
    *,
    is_prompt: bool = False,
) -> list[TokenText]:
    rendered = rendered_text(
        stage.tokenizer,
        [dict(message) for message in messages],
        tools=tools,
        add_generation_prompt=is_prompt,
        labelled=False,
    )
    return token_texts(stage.tokenizer, rendered.text, input_ids, add_special_tokens=False, literals=rendered.literals)


def _cut_sequence(
    title: str,
    tokens: Sequence[TokenText],
    mask: Sequence[bool],
    length: int,
    max_length: int | None,
    first_position: int = 0,
) -> TokenSequence:
    """Tokens of which the model sees the first `length`; `mask` says which of them all are marked."""
    atoms = _atoms(tokens[:length], mask[:length])
    beyond, marked_beyond = tokens[length:], sum(mask[length:])
    if beyond:
        text = "".join(token.text for token in beyond)
        details = [_count(len(text), "character"), *([f"{marked_beyond:,} with a loss"] if any(mask) else [])]
        notice = f"cut here: {_count(len(beyond), 'token')} beyond max_length {max_length} ({', '.join(details)})"
        atoms.append(Segment(text, "cut", notice=notice))
    return TokenSequence(title, _joined(atoms), _shown(tokens[:length], mask[:length]), len(tokens), first_position)


def _scorer_training(stage: InspectedStage, row: ScorerExample) -> list[TokenSequence]:
    """The prompt, the digit of the label, the end of sequence."""
    tokenizer = stage.tokenizer
    limit = stage.identity["max_length"]
    encoder = training_encoder(tokenizer, stage.identity["dimension"], limit)
    prompt = scorer_prompt(encoder, row, limit)
    labelled = scorer_row(encoder, row, prompt, tokenizer.eos_token_id)
    digit, end = labelled.input_ids[len(prompt.input_ids) :]
    digit_piece = str(tokenizer.convert_ids_to_tokens(digit))
    answer = [
        TokenText(digit, DIGITS[row.score - 1], digit_piece, is_control=False, readable=True, added=True),
        control_token(tokenizer, end),
    ]
    turn = TurnPrompt(row.instruction, row.response, prompt, None)
    return [_prompt_sequence(stage, "text", turn, prompt, answer, loss_mask(labelled.labels))]


def _scored_turns(stage: InspectedStage, row: Row) -> list[TokenSequence]:
    """One prompt for each user turn."""
    dimension = stage.identity["dimension"]
    encoder = scoring_encoder(stage.tokenizer, stage.identity, stage.identity["max_length"])
    turns = list(turn_prompts(encoder, dimension, row["messages"]))
    shown = []
    for number, turn in enumerate(turns):
        title = "text" if len(turns) == 1 else f"turn {number + 1} of {len(turns)}"
        if turn.prompt is None:
            shown.append(TokenSequence(title, (), (), 0, note=f"not scored: {turn.reason}"))
        else:
            mask = [False] * len(turn.prompt.input_ids)
            shown.append(_prompt_sequence(stage, title, turn, turn.prompt, [], mask))
    return shown


def _prompt_sequence(
    stage: InspectedStage,
    title: str,
    turn: TurnPrompt,
    prompt: PromptIds,
    answer: list[TokenText],
    mask: Sequence[bool],
) -> TokenSequence:
    """A scorer's prompt with the text that was left out, then the answer that a training adds."""
    tokenizer, dimension = stage.tokenizer, stage.identity["dimension"]
    kept = prompt_parts(dimension, prompt.instruction, prompt.response)
    literals = literal_spans(tokenizer, kept)
    tokens = token_texts(tokenizer, "".join(kept), prompt.input_ids, add_special_tokens=True, literals=literals)
    before = list(takewhile(lambda token: token.added, tokens))
    after = [*(token for token in tokens[len(before) :] if token.added), *answer]
    whole = prompt_parts(dimension, turn.instruction, turn.response)
    parts = [segment for left, full in zip(kept, whole, strict=True) for segment in _shortened(left, full, stage)]
    atoms = [*_atoms(before, mask[: len(before)]), *parts, *_atoms(after, mask[len(mask) - len(after) :])]
    unlimited = PromptEncoder(tokenizer, dimension, sys.maxsize).encode(turn.instruction, turn.response)
    assert unlimited is not None
    num_tokens = len(unlimited.input_ids) + len(answer)
    return TokenSequence(title, _joined(atoms), _shown([*tokens, *answer], mask), num_tokens)


def _shortened(left: str, full: str, stage: InspectedStage) -> list[Segment]:
    """A part of a prompt: what is left of it, then what was left out."""
    assert full.startswith(left)
    if left == full:
        return [Segment(left, "plain")]
    text = full[len(left) :]
    room = f"max_length {stage.max_length}"
    if stage.shown.form == "labelled":
        room += " with the digit and the end of sequence"
    notice = f"shortened here: {_count(len(text), 'character')} left out, so that the prompt fits {room}"
    return [Segment(left, "plain"), Segment(text, "cut", notice=notice)]


def _atoms(tokens: Sequence[TokenText], mask: Sequence[bool]) -> list[Segment]:
    return [
        Segment(token.text, "marked" if marked else "plain", token.is_control)
        for token, marked in zip(tokens, mask, strict=True)
    ]


def _joined(atoms: Iterable[Segment]) -> tuple[Segment, ...]:
    """Merge neighbours of one kind; a segment with a notice stays separate."""
    groups = groupby((atom for atom in atoms if atom.text), key=lambda atom: (atom.state, atom.is_control, atom.notice))
    return tuple(
        Segment("".join(atom.text for atom in group), state, is_control, notice)
        for (state, is_control, notice), group in groups
    )


def _shown(tokens: Sequence[TokenText], mask: Sequence[bool]) -> tuple[ShownToken, ...]:
    return tuple(
        ShownToken(token.id, token.text if token.readable else None, token.piece, marked)
        for token, marked in zip(tokens, mask, strict=True)
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


_SEQUENCES: Mapping[RowForm, Callable[[InspectedStage, Row], list[TokenSequence]]] = {
    "text": _conversation,
    "conversation": _conversation,
    "pair": _pair,
    "scored_turns": _scored_turns,
    "labelled": _scorer_training,
    "question": _question,
}

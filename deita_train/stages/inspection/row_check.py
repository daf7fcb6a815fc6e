"""A sample of a stage's rows, rendered, encoded and labelled by the stage's own code, for `deita-train validate`."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from deita_train.budget import budget_rows
from deita_train.data.no_rows import no_row_left
from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.models.adapter_files import is_adapter
from deita_train.models.model_limits import vocabulary_problem
from deita_train.stages.inference.lengths import row_lengths
from deita_train.stages.intake.scorer_data import read_scorer_data
from deita_train.stages.kinds import STAGE_KINDS, ShownRows
from deita_train.stages.refusals import Refusals
from deita_train.stages.resized_model import resized_folder
from deita_train.stages.row_limit import Readable, RowLimit, row_limit
from deita_train.stages.rows import (
    conversation_row,
    pair_row,
    question_prompts,
    scorer_prompt,
    scorer_row,
    scoring_encoder,
    text_row,
    training_encoder,
    turn_prompts,
)
from deita_train.stages.stage_model import tokenizer_path, trusts_code
from deita_train.stages.validation import StageToValidate, is_repeated, read_once
from deita_train.training.end_of_turn import check_answer_marks
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import loss_mask

_SAMPLED = 200
# Enough for the tokenizer that stands in for one that the run will train.
_VOCABULARY = 400


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows of a sample the stage could read, and what its model's files say against it.

    The tokenizer of a miniature that the run makes does not exist yet; one trained on the sample stands in for it.

    Raises:
        UserError: the stage would fail on its model, its template or its rows.
    """
    if "labels" in stage.parents or "endpoint" in stage.runtime or is_repeated(_rendering(stage)):
        return  # labels that a chat model will make are not there yet, and what a server renders is its own affair
    logging.set_verbosity_error()  # transformers warns of rows beyond the model's context, which are cut
    rows, total = _sample(stage)
    with _tokenizer_folder(stage, rows) as folder:
        tokenizer = _tokenizer(stage, folder)
        if stage.kind == "sft":
            _prefixed(stage, partial(check_answer_marks, tokenizer), "chat_template: ")
        if _resizing(stage) is not None and Path(tokenizer.name_or_path) == folder:
            yield f"{stage.label}: resize: true changes nothing in this cell of the sweep: the model lacks no token"
        yield from _small_data(stage, total)
        yield from _tried(stage, tokenizer, rows, total, _limit(stage, folder))


def _rendering(stage: StageToValidate) -> dict[str, Any]:
    """What decides how the stage's rows are rendered; stages with the same, such as a sweep's, are tried once."""
    source, data = _line(stage)[-1], _data(stage)
    names = (
        "chat_template", "pairs_template", "max_length", "max_length_limit", "cut_at_context", "parity",
        "unsupported_fields", "dimension",
    )  # fmt: skip
    return {
        "how": {**_marks(stage), "form": _form(stage)} | {name: stage.identity.get(name) for name in names},
        "cut": stage.identity.get("trainer", {}).get("max_length"),
        "resized": any(made.identity.get("resize") for made in _line(stage)),
        "share": stage.runtime.get("max_refused_share"),
        "model": source.identity.get("model", source.identity.get("architecture")),
        "data": stage.identity["data"] if data is None else data.identity,
    }


def _form(stage: StageToValidate) -> str:
    """How the stage reads its rows. One that counts their tokens gives them to no model, so `inspect` shows none."""
    return "lengths" if stage.kind == "lengths" else _shown(stage).form


def _marks(stage: StageToValidate) -> dict[str, Any]:
    """What becomes of the marked tokens."""
    return {} if stage.kind == "lengths" else vars(_shown(stage))


def _shown(stage: StageToValidate) -> ShownRows:
    rows = STAGE_KINDS[stage.kind].rows
    assert rows is not None
    return rows


def _data(stage: StageToValidate) -> StageToValidate | None:
    """The intake stage whose rows the stage may read; None for a scorer's training, which reads its own."""
    if "data" in stage.identity:
        return None
    data = stage.parents.get("data") or stage.parents.get("questions") or stage.parents["pool"]
    while "sources" not in data.identity and "source" not in data.identity:
        # A selection, whose rows are some of the pool's, or of the pairs.
        data = data.parents.get("pool") or data.parents["data"]
    return data


def _sample(stage: StageToValidate) -> tuple[list[Any], int]:
    """Some of the rows that the stage may read, evenly spaced, and the number of all."""
    data = _data(stage)
    rows: Any = read_scorer_data(stage.identity, stage.runtime, "data") if data is None else read_once(data)[0]
    step = max(1, len(rows) // _SAMPLED)
    return [rows[place] for place in range(0, len(rows), step)], len(rows)


def _tokenizer_folder(stage: StageToValidate, rows: list[Any]) -> AbstractContextManager[Path]:
    """The folder with the stage's tokenizer; of a model that the run trains, that of the model it starts from."""
    source = _line(stage)[-1]
    if STAGE_KINDS[source.kind].makes_base:
        return _stand_in(source.identity["chat_template"], rows)
    return nullcontext(tokenizer_path(source.identity["model"], source.runtime["model"], stage.label))


def _line(stage: StageToValidate) -> list[StageToValidate]:
    """The stage and the trainings that make its model, the last one first."""
    line = [stage]
    while "model" in line[-1].parents:
        line.append(line[-1].parents["model"])
    return line


def _readable(stage: StageToValidate, folder: Path) -> Readable:
    """What the stage's model can read: by its folder, or by the shape of the miniature that the run makes."""
    source = _line(stage)[-1]
    if STAGE_KINDS[source.kind].makes_base:
        return Readable(source.identity["architecture"]["context_length"])
    return Readable.by(folder, trust_code=trusts_code(source.identity))


@contextmanager
def _stand_in(template: str, rows: list[Any]) -> Iterator[Path]:
    """A folder with a tokenizer of the miniature's kind, trained on the text of the sample."""
    texts = [text for row in rows for text in _texts(row)]
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, _VOCABULARY, template, Path(folder))
        yield Path(folder)


def _texts(row: Any) -> list[str]:
    if isinstance(row, Mapping) and "turns" in row:
        return list(row["turns"])
    messages = row.get("messages", row.get("prompt", [])) if isinstance(row, Mapping) else []
    return [message["content"] for message in messages]


def _tokenizer(stage: StageToValidate, folder: Path) -> PreTrainedTokenizerBase:
    """The stage's tokenizer with its template.

    Raises:
        UserError: the model lacks embeddings for its tokens, or its tokenizer a token of the template.
    """
    section = _section(stage)
    template = stage.identity.get("pairs_template") or stage.identity.get("chat_template")
    resizing = _resizing(stage)
    if resizing is not None:
        with tempfile.TemporaryDirectory() as resized:
            folder = resized_folder(folder, Path(resized) / "resized", template, resizing, weights=False)
            return load_tokenizer(str(folder), template)
    counts_only = stage.kind == "lengths"  # such a stage needs no embeddings
    problem = None if counts_only or is_adapter(folder) else vocabulary_problem(folder)
    if problem is not None:
        trains = STAGE_KINDS[stage.kind].trains
        way = "State resize: true, or resize" if trains else "Resize"
        raise UserError(
            f"{section}.model: {problem}. {way} it once and save it (resize_token_embeddings), or name another model."
        )
    load = partial(load_tokenizer, str(folder), template, trust_code=trusts_code(stage.identity))
    return _prefixed(stage, load)


def _limit(stage: StageToValidate, folder: Path) -> RowLimit:
    """Where the stage cuts its rows; one that counts their tokens does not."""
    if stage.kind == "lengths":
        return RowLimit(None, None)
    return row_limit(stage.identity, _readable(stage, folder))


def _small_data(stage: StageToValidate, total: int) -> Iterator[str]:
    """A line for a training whose batch holds more rows than it trains on, at most `total`."""
    if not STAGE_KINDS[stage.kind].trains:
        return
    data, batch = stage.parents.get("data"), stage.identity["global_batch_size"]
    budget = None if data is None else data.identity.get("budget")
    rows = min(total, total if budget is None else budget_rows(budget, total) or total)
    if batch > rows:
        more = f"global_batch_size {batch:,} is more than the {rows:,} rows to train on"
        yield f"{stage.label}: {more}; an epoch is one step"


def _resizing(stage: StageToValidate) -> Mapping[str, Any] | None:
    """Who adds tokens to the stage's model; None where nobody does."""
    return next((made.runtime["resizing"] for made in _line(stage) if made.identity.get("resize")), None)


def _tried(
    stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, rows: list[Any], total: int, limit: RowLimit
) -> Iterator[str]:
    """A line with what became of the sample, after one on the model's context where rows of it are longer.

    Raises:
        UserError: more rows were refused than the recipe allows, or a row would stop the stage.
    """
    section = _section(stage)
    refusals = Refusals.of_stage(stage.label, stage.identity, stage.runtime, is_logged=False)
    make = _MAKERS[_form(stage)](stage, tokenizer, limit.tokens, refusals)
    made = [
        refusals.unless_refused(row["id"] if isinstance(row, Mapping) else row.where, partial(make, row))
        for row in rows
    ]
    refused = sum(refusals.check(len(rows)).values())
    kept = [row for row in made if row is not None]
    usable, cut = sum(row.is_usable for row in kept), sum(row.is_cut for row in kept)
    if limit.note is not None and any(row.is_cut or limit.beyond_context(row.tokens) for row in kept):
        yield f"{stage.label}: {limit.note}"
    left_out = "".join(f", {count:,} {reason}" for reason, count in refusals.counts.items())
    silent = len(rows) - usable - refused
    if rows and not usable:
        which = "is usable" if len(rows) == total else f"tried of {total:,} is usable"
        raise UserError(f"{section}: {no_row_left(which, {**refusals.counts, 'without_token': silent})}")
    lack = "room for an answer in the context" if _form(stage) == "question" else "a token to learn from or to measure"
    without = f", {silent:,} without {lack}" if silent else ""
    as_text = f", {refusals.as_text:,} of them with fields written as text" if refusals.as_text else ""
    template = stage.runtime.get("template")
    by = f" with {template}" if template else ""
    shorter = f", {cut:,} cut at {limit.tokens:,} tokens" if cut else ""
    yield (
        f"{stage.label}: {len(rows):,} of {total:,} rows tried{by}: {usable:,} usable{as_text}{left_out}{without}"
        f"{shorter}"
    )


class _Made(NamedTuple):
    """Whether a row has something for the stage, whether the limit left a part of it out, and how long it is."""

    is_usable: bool
    is_cut: bool
    tokens: int


Maker = Callable[[Any], _Made]


def _conversations(
    stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, refusals: Refusals
) -> Maker:
    labelled = bool(_shown(stage).verb)

    def make(row: Any) -> _Made:
        made = conversation_row(tokenizer, row, length, labelled=labelled, **refusals.how)
        usable = any(loss_mask(made.labels)) if labelled else bool(made.input_ids)
        return _Made(usable, made.truncated, len(made.input_ids))

    return make


def _questions(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, _: Refusals) -> Maker:
    def make(row: Any) -> _Made:
        first = len(question_prompts(tokenizer, row)[0])
        return _Made(length is None or first < length, is_cut=False, tokens=first)

    return make


def _text(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, _: Refusals) -> Maker:
    def make(row: Any) -> _Made:
        made = text_row(tokenizer, row, length)
        return _Made(bool(made.input_ids), made.truncated, len(made.input_ids))

    return make


def _pairs(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, refusals: Refusals) -> Maker:
    def make(row: Any) -> _Made:
        pair = pair_row(tokenizer, row, length, **refusals.how)
        answer = max(len(pair.chosen_ids), len(pair.rejected_ids))
        return _Made(pair.differs, pair.truncated, len(pair.prompt_ids) + answer)

    return make


def _turns(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, _: Refusals) -> Maker:
    assert length is not None, "a scorer has a limit"
    encoder = _prefixed(stage, partial(scoring_encoder, tokenizer, stage.identity, length))
    dimension = stage.identity["dimension"]

    def make(row: Any) -> _Made:
        prompts = [turn.prompt for turn in turn_prompts(encoder, dimension, row["messages"]) if turn.prompt is not None]
        longest = max((len(prompt.input_ids) for prompt in prompts), default=0)
        return _Made(bool(prompts), any(prompt.shortened for prompt in prompts), longest)

    return make


def _labelled(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None, _: Refusals) -> Maker:
    assert length is not None, "a scorer has a limit"
    encoder = _prefixed(stage, partial(training_encoder, tokenizer, stage.identity["dimension"], length))
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"{_section(stage)}.model: its tokenizer has no end of sequence, which follows the digit.")

    def make(row: Any) -> _Made:
        made = scorer_row(encoder, row, scorer_prompt(encoder, row, length), end)
        return _Made(bool(made.input_ids), made.truncated, len(made.input_ids))

    return make


def _lengths(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, _: int | None, refusals: Refusals) -> Maker:
    def make(row: Any) -> _Made:
        lengths = row_lengths(tokenizer, row, **refusals.how)
        return _Made(lengths["first_trained"] is not None, False, lengths["num_tokens"])

    return make


_MAKERS: Mapping[str, Callable[[StageToValidate, PreTrainedTokenizerBase, int | None, Refusals], Maker]] = {
    "conversation": _conversations,
    "text": _text,
    "pair": _pairs,
    "scored_turns": _turns,
    "labelled": _labelled,
    "lengths": _lengths,
    "question": _questions,
}


def _section(stage: StageToValidate) -> str:
    return str(stage.runtime.get("section", stage.label))


def _prefixed(stage: StageToValidate, check: Callable[[], Any], what: str = "") -> Any:
    """What `check` returns; its error names the stage's section."""
    try:
        return check()
    except UserError as error:
        raise UserError(f"{_section(stage)}: {what}{error}") from error

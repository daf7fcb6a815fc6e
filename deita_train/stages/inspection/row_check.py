"""A sample of a stage's rows, rendered, encoded and labelled by the stage's own code, for `deita-train validate`."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.models.adapter_files import is_adapter
from deita_train.models.model_limits import vocabulary_problem
from deita_train.stages.intake.scorer_data import read_scorer_data
from deita_train.stages.kinds import STAGE_KINDS, stage_module
from deita_train.stages.refusals import Refusals
from deita_train.stages.resized_model import resized_folder
from deita_train.stages.row_limit import Readable, RowLimit, row_limit
from deita_train.stages.rows import (
    conversation_row,
    pair_row,
    scorer_prompt,
    scorer_row,
    scoring_encoder,
    text_row,
    training_encoder,
    turn_prompts,
)
from deita_train.stages.stage_model import tokenizer_path, trusts_code
from deita_train.stages.validation import StageToValidate
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
    logging.set_verbosity_error()  # transformers warns of rows beyond the model's context, which are cut
    rows, total = _sample(stage)
    with _tokenizer_folder(stage, rows) as folder:
        tokenizer = _tokenizer(stage, folder)
        if stage.kind == "sft":
            _prefixed(stage, partial(check_answer_marks, tokenizer), "chat_template: ")
        limit = row_limit(stage.identity, _readable(stage, folder))
        if limit.note is not None:
            yield f"{stage.label}: {limit.note}"
        yield _tried(stage, tokenizer, rows, total, limit)


def _sample(stage: StageToValidate) -> tuple[list[Any], int]:
    """Some of the rows that the stage may read, evenly spaced, and the number of all."""
    if "data" in stage.identity:
        rows: Any = read_scorer_data(stage.identity, stage.runtime, "data")
    else:
        data = stage.parents.get("data") or stage.parents["pool"]
        while "sources" not in data.identity and "source" not in data.identity:
            data = data.parents["pool"]  # a selection, whose rows are some of the pool's
        rows = read_once(data)
    step = max(1, len(rows) // _SAMPLED)
    return [rows[place] for place in range(0, len(rows), step)], len(rows)


def read_once(stage: StageToValidate) -> datasets.Dataset:
    """The rows of an intake stage, read at most once while a recipe is validated."""
    identity, runtime = (json.dumps(part, sort_keys=True, default=str) for part in (stage.identity, stage.runtime))
    return _read(stage.kind, identity, runtime)


@lru_cache(maxsize=8)
def _read(kind: str, identity: str, runtime: str) -> datasets.Dataset:
    table: datasets.Dataset = stage_module(kind).read_rows(json.loads(identity), json.loads(runtime))[0]
    return table


def _tokenizer_folder(stage: StageToValidate, rows: list[Any]) -> AbstractContextManager[Path]:
    """The folder with the stage's tokenizer; of a model that the run trains, that of the model it starts from."""
    source = _origin(stage)
    if STAGE_KINDS[source.kind].makes_base:
        return _stand_in(source.identity["chat_template"], rows)
    return nullcontext(tokenizer_path(source.identity["model"], source.runtime["model"], stage.label))


def _origin(stage: StageToValidate) -> StageToValidate:
    """The stage that names the model from which the stage's own comes, or makes it."""
    while "model" in stage.parents:
        stage = stage.parents["model"]
    return stage


def _readable(stage: StageToValidate, folder: Path) -> Readable:
    """What the stage's model can read: by its folder, or by the shape of the miniature that the run makes."""
    source = _origin(stage)
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
    messages = row.get("messages", row.get("prompt", [])) if isinstance(row, Mapping) else []
    return [message["content"] for message in messages]


def _tokenizer(stage: StageToValidate, folder: Path) -> PreTrainedTokenizerBase:
    """The stage's tokenizer with its template.

    Raises:
        UserError: the model lacks embeddings for its tokens, or its tokenizer a token of the template.
    """
    section = _section(stage)
    template = stage.identity.get("pairs_template") or stage.identity.get("chat_template")
    if stage.identity.get("resize"):
        with tempfile.TemporaryDirectory() as resized:
            folder = resized_folder(folder, Path(resized) / "resized", template, weights=False)
            return load_tokenizer(str(folder), template)
    problem = None if is_adapter(folder) else vocabulary_problem(folder)
    if problem is not None:
        raise UserError(
            f"{section}.model: {problem}. State resize: true where it is trained, or resize it and save it."
        )
    load = partial(load_tokenizer, str(folder), template, trust_code=trusts_code(stage.identity))
    return _prefixed(stage, load)


def _tried(
    stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, rows: list[Any], total: int, limit: RowLimit
) -> str:
    """A line with what became of the sample.

    Raises:
        UserError: more rows were refused than the recipe allows, or a row would stop the stage.
    """
    section = _section(stage)
    refusals = Refusals(section, stage.runtime.get("max_refused_share", 0.0), is_logged=False)
    make = _MAKERS[STAGE_KINDS[stage.kind].rows.form](stage, tokenizer, limit.tokens)  # type: ignore[union-attr]
    made = [
        refusals.unless_refused(row["id"] if isinstance(row, Mapping) else row.where, partial(make, row))
        for row in rows
    ]
    refused = sum(refusals.check(len(rows)).values())
    usable = sum(row is not None and row.is_usable for row in made)
    cut = sum(row is not None and row.is_cut for row in made)
    left_out = "".join(f", {count:,} {reason}" for reason, count in refusals.counts.items())
    silent = len(rows) - usable - refused
    without = f", {silent:,} without a token to learn from or to measure" if silent else ""
    template = stage.runtime.get("template")
    by = f" by {template}" if template else ""
    shorter = f", {cut:,} cut at {limit.tokens:,} tokens" if cut else ""
    return f"{stage.label}: {len(rows):,} of {total:,} rows tried{by}: {usable:,} usable{left_out}{without}{shorter}"


class _Made(NamedTuple):
    """Whether a row has something for the stage, and whether the limit left a part of it out."""

    is_usable: bool
    is_cut: bool


Maker = Callable[[Any], _Made]


def _conversations(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None) -> Maker:
    how = stage.identity.get("unsupported_fields", "drop")
    shown = STAGE_KINDS[stage.kind].rows
    labelled = shown is not None and bool(shown.verb)

    def make(row: Any) -> _Made:
        made = conversation_row(tokenizer, row, length, unsupported_fields=how, labelled=labelled)
        return _Made(any(loss_mask(made.labels)) if labelled else bool(made.input_ids), made.truncated)

    return make


def _text(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None) -> Maker:
    def make(row: Any) -> _Made:
        made = text_row(tokenizer, row, length)
        return _Made(bool(made.input_ids), made.truncated)

    return make


def _pairs(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None) -> Maker:
    how = stage.identity.get("unsupported_fields", "drop")

    def make(row: Any) -> _Made:
        pair = pair_row(tokenizer, row, length, unsupported_fields=how)
        return _Made(pair.differs, pair.truncated)

    return make


def _turns(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None) -> Maker:
    assert length is not None, "a scorer has a limit"
    encoder = _prefixed(stage, partial(scoring_encoder, tokenizer, stage.identity, length))
    dimension = stage.identity["dimension"]

    def make(row: Any) -> _Made:
        prompts = [turn.prompt for turn in turn_prompts(encoder, dimension, row["messages"]) if turn.prompt is not None]
        return _Made(bool(prompts), any(prompt.shortened for prompt in prompts))

    return make


def _labelled(stage: StageToValidate, tokenizer: PreTrainedTokenizerBase, length: int | None) -> Maker:
    assert length is not None, "a scorer has a limit"
    encoder = _prefixed(stage, partial(training_encoder, tokenizer, stage.identity["dimension"], length))
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"{_section(stage)}.model: its tokenizer has no end of sequence, which follows the digit.")

    def make(row: Any) -> _Made:
        made = scorer_row(encoder, row, scorer_prompt(encoder, row, length), end)
        return _Made(bool(made.input_ids), made.truncated)

    return make


_MAKERS: Mapping[str, Callable[[StageToValidate, PreTrainedTokenizerBase, int | None], Maker]] = {
    "conversation": _conversations,
    "text": _text,
    "pair": _pairs,
    "scored_turns": _turns,
    "labelled": _labelled,
}


def _section(stage: StageToValidate) -> str:
    return str(stage.runtime.get("section", stage.label))


def _prefixed(stage: StageToValidate, check: Callable[[], Any], what: str = "") -> Any:
    """What `check` returns; its error names the stage's section."""
    try:
        return check()
    except UserError as error:
        raise UserError(f"{_section(stage)}: {what}{error}") from error

"""Stage `lengths`: the SFT tokens of each row of the pool, and where each turn's answer ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from deita_train.data.conversations import is_trained
from deita_train.data.no_rows import no_row_left
from deita_train.data.rendering import load_tokenizer
from deita_train.data.row_refusal import RowRefused
from deita_train.inference.row_file import write_dataset
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.refusals import Refusals
from deita_train.stages.resized_model import resized_folder
from deita_train.stages.row_limit import Readable
from deita_train.stages.rows import UnsupportedFields, conversation_row
from deita_train.stages.stage_model import tokenizer_path, trusts_code
from deita_train.training.rows import loss_mask

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "num_tokens": datasets.Value("int32"),
        "first_trained": datasets.Value("int32"),
        "turn_ends": datasets.List(datasets.Value("int32")),
    }
)
"""``num_tokens``: of the uncut row. ``first_trained``: position of the first token with a loss, or null.
``turn_ends``: for each user turn the number of tokens up to the end of its answer, null without one."""
ANSWER_TOKENS = {"answer_tokens": datasets.Value("int32")}
"""How many tokens of the uncut row have a loss; in the table where a selection ranks by it."""


def run(context: StageContext) -> StageResult:
    """Render every row as SFT does, uncut: one table serves every max_length."""
    folder, trusted = _tokenizer(context), trusts_code(context.identity)
    tokenizer = load_tokenizer(str(folder), context.identity["chat_template"], trust_code=trusted)
    tokenizer.model_max_length = 10**9  # or it would warn about rows longer than the model's context, which SFT cuts
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    counts_answers = context.identity.get("answer_tokens", False)
    features = FEATURES if not counts_answers else datasets.Features({**FEATURES, **ANSWER_TOKENS})
    refusals = Refusals.of(context)
    num_rows = write_dataset(_measured(context, refusals, tokenizer, pool), features, context.data_dir)
    drops = dict(refusals.counts)
    if not num_rows:
        raise no_row_left("has a length", drops)
    lengths = datasets.load_from_disk(str(context.data_dir)).data.column("num_tokens").to_numpy()
    readable = asdict(Readable.by(folder, trust_code=trusted))
    metrics = {
        "rows": num_rows,
        "tokens": int(lengths.sum(dtype=np.int64)),
        "longest": int(lengths.max()),
        "readable": readable,
        "rows_as_text": refusals.as_text,
    }
    return StageResult(len(pool), num_rows, drops, metrics)


def _measured(
    context: StageContext, refusals: Refusals, tokenizer: PreTrainedTokenizerBase, pool: datasets.Dataset
) -> Iterator[dict[str, Any]]:
    for _, row_id, lengths in refusals.rows_of(context, pool, partial(row_lengths, tokenizer, **refusals.how)):
        if lengths is not None:
            yield {"id": row_id, **lengths}


def row_lengths(
    tokenizer: PreTrainedTokenizerBase,
    row: Mapping[str, Any],
    *,
    unsupported_fields: UnsupportedFields = "drop",
    on_text: Callable[[], None],
) -> dict[str, Any]:
    """The row's values of ``FEATURES`` and ``ANSWER_TOKENS`` except its id.

    `on_text` is called if it is written as text.

    Raises:
        RowRefused: the template cannot write the row, or does not mark each answer separately.
    """
    rendered = conversation_row(tokenizer, row, None, unsupported_fields=unsupported_fields, on_text=on_text)
    mask = loss_mask(rendered.labels)
    return {
        "num_tokens": len(mask),
        "first_trained": mask.index(True) if any(mask) else None,
        "turn_ends": _turn_ends(row, mask),
        "answer_tokens": sum(mask),
    }


def _turn_ends(row: Mapping[str, Any], mask: Sequence[bool]) -> list[int | None]:
    """For each user turn the end of the last run of trained tokens that answers it."""
    ends, place = [], 0
    for has_loss, run_of in groupby(mask):
        place += len(list(run_of))
        if has_loss:
            ends.append(place)
    trained = [message for message in row["messages"] if message["role"] == "assistant" and is_trained(message)]
    if len(ends) != len(trained):
        raise RowRefused(
            "answer_not_separable",
            f"for {len(trained)} answers to be trained the template marks {len(ends)} spans, so it is unknown where "
            "each ends",
        )
    following = iter(ends)
    of_turns: list[int | None] = []
    for message in row["messages"]:
        if message["role"] == "user":
            of_turns.append(None)
        elif message["role"] == "assistant" and is_trained(message):
            end = next(following)
            if of_turns:  # an answer before the first question belongs to no turn
                of_turns[-1] = end
    return of_turns


def _tokenizer(context: StageContext) -> Path:
    """A folder with the tokenizer; of a Hub model no weights are downloaded."""
    if "model" in context.parents:
        return context.parents["model"] / "model"
    source = tokenizer_path(context.identity["model"], context.runtime["model"], context.label)
    if not context.identity.get("resize"):
        return source
    target, template = context.prepared_dir / "resized", context.identity["chat_template"]
    return resized_folder(source, target, template, context.runtime["resizing"], weights=False)

"""Stage `base`: a miniature base model for runs without a network, briefly pretrained on the text of conversations."""

from collections.abc import Iterator

import datasets

from deita_train.data.rendering import load_tokenizer
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.row_limit import Readable, row_limit
from deita_train.stages.rows import text_row
from deita_train.stages.training.prepared_training import ROWS, train_prepared, write_count
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows

_INITIAL = "initial_model"


def prepare(context: StageContext) -> None:
    """Train the tokenizer, draw the initial weights, render the text."""
    shape = context.identity["architecture"]
    initial = context.prepared_dir / _INITIAL
    texts = (message["content"] for row in _conversations(context) for message in row["messages"])
    tokenizer = train_tokenizer(texts, shape["vocab_size"], context.identity["chat_template"], initial)
    make_model(
        tokenizer,
        hidden_size=shape["hidden_size"],
        num_layers=shape["num_layers"],
        num_heads=shape["num_heads"],
        context_length=shape["context_length"],
        seed=context.identity["seed"],
        folder=initial,
    )
    write_count(context, write_training_rows(_text_rows(context), context.prepared_dir / ROWS))


def run(context: StageContext) -> StageResult | None:
    """Pretrain on every token of the text."""
    return train_prepared(context, context.prepared_dir / _INITIAL, context.identity["chat_template"])


def _conversations(context: StageContext) -> datasets.Dataset:
    return datasets.load_from_disk(str(context.parents["data"] / "data"))


def _text_rows(context: StageContext) -> Iterator[LabelledRow]:
    tokenizer = load_tokenizer(str(context.prepared_dir / _INITIAL), context.identity["chat_template"])
    limit = row_limit(context.identity, Readable.by(context.prepared_dir / _INITIAL)).tokens
    for row in _conversations(context):
        yield text_row(tokenizer, row, limit)

"""Preference pairs as token ids, the same for the reference, the training and the evaluation."""

from collections.abc import Iterator
from functools import partial

import datasets
from transformers import PreTrainedTokenizerBase

from deita_train.data.rendering import RenderedPair, load_tokenizer
from deita_train.stages.context import StageContext
from deita_train.stages.refusals import Refusals
from deita_train.stages.row_limit import told_limit
from deita_train.stages.rows import pair_row
from deita_train.stages.stage_model import model_path, trusts_code


def pairs_tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    """The tokenizer of the stage's model, with the template for its pairs."""
    template = context.identity.get("pairs_template") or context.identity["chat_template"]
    return load_tokenizer(str(model_path(context)), template, trust_code=trusts_code(context.identity))


def rendered_pairs(context: StageContext, refusals: Refusals) -> Iterator[tuple[str, RenderedPair]]:
    """Each pair's id and token ids, rendered by the run's template (or the one for its pairs), cut to `max_length`.

    Pairs that the template cannot write are left out; these, and those written as text, are counted in `refusals`.
    """
    tokenizer = pairs_tokenizer(context)
    pairs = datasets.load_from_disk(str(context.parents["data"] / "data"))
    render = partial(
        pair_row,
        tokenizer,
        max_length=told_limit(context).tokens,
        **refusals.how,
    )
    for _, pair_id, pair in refusals.rows_of(context, pairs, render, "pairs rendered"):
        if pair is not None:
            yield pair_id, pair

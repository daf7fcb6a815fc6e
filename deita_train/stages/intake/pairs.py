"""Preference pairs as token ids, the same for the reference, the training and the evaluation."""

from collections.abc import Iterator

import datasets

from deita_train.data.rendering import RenderedPair, load_tokenizer
from deita_train.stages.context import StageContext
from deita_train.stages.rows import pair_row
from deita_train.stages.stage_model import model_path, trusts_code


def rendered_pairs(context: StageContext) -> Iterator[tuple[str, RenderedPair]]:
    """Each pair's id and token ids, rendered by the run's template (or the one for its pairs), cut to `max_length`."""
    template = context.identity.get("pairs_template") or context.identity["chat_template"]
    tokenizer = load_tokenizer(str(model_path(context)), template, trust_code=trusts_code(context.identity))
    pairs = datasets.load_from_disk(str(context.parents["data"] / "data"))
    for number, row in enumerate(pairs):
        context.progress.update(number + 1, len(pairs), "pairs rendered")
        yield row["id"], pair_row(tokenizer, row, context.identity["max_length"])

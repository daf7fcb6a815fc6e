"""Stage `sft`: supervised fine-tuning on conversations, loss on the assistant's turns only."""

from collections.abc import Iterator

import datasets

from deita_train.data.rendering import load_tokenizer, render
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.models import model_path
from deita_train.stages.training import ROWS, train_prepared, write_count
from deita_train.training.rows import LabelledRow, write_training_rows

# trl would cut at 1,024 without a word; the paper's length is 2,048 [App. A].
DEFAULT_MAX_LENGTH = 2048


def prepare(context: StageContext) -> None:
    """Render every row once."""
    count = write_training_rows(_rendered(context), context.prepared_dir / ROWS)
    write_count(context, count)


def run(context: StageContext) -> StageResult | None:
    """Train and leave the model with the run's template."""
    return train_prepared(context, model_path(context), context.config["chat_template"])


def _rendered(context: StageContext) -> Iterator[LabelledRow]:
    tokenizer = load_tokenizer(str(model_path(context)), context.config["chat_template"])
    max_length = context.config["trainer"].get("max_length", DEFAULT_MAX_LENGTH)
    rows = datasets.load_from_disk(str(context.parents["data"] / "data"))
    for number, row in enumerate(rows):
        rendered = render(tokenizer, row["messages"], max_length)
        context.progress.update(number + 1, len(rows), "rows rendered")
        yield LabelledRow(row["id"], rendered.input_ids, rendered.labels, rendered.truncated)

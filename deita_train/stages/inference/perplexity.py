"""Stage `perplexity`: how hard the answers of each conversation are for a model, and how much the instruction helps.

`perplexity` is exp of the mean loss of the assistant's tokens given everything before them. `ifd`, the instruction-
following difficulty [Cherry, arXiv 2308.12032], compares that with the answers alone, each after only the first token
that the template writes: the ratio of the two perplexities, as in Superfiltering [arXiv 2402.00530], or with
`ifd: losses` that of the two mean losses, as in Cherry's code. Both cover the same tokens, those within `max_length`,
over the answers of all turns together. Above 1 the instruction does not help the model, by either ratio.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, iter_columns
from deita_train.data.row_table import as_dataset
from deita_train.inference.batches import read_plan
from deita_train.inference.row_file import IDS, IDS_TYPE, LABELS, RowFile, RowWriter
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, ROWS, TokenLosses, prepare_rows, token_losses
from deita_train.stages.inference.rendered_table import RenderedTable, rendered_rows
from deita_train.stages.row_limit import stage_limit
from deita_train.stages.rows import answers_alone
from deita_train.training.rows import LabelledRow, loss_mask

COLUMNS = ("perplexity", "ifd")
_RENDERED = "rendered.arrow"
# A sequence is a conversation, or one of its answers `alone`; `row` is its number in the pool.
_COLUMNS = {"row": pa.int64(), "alone": pa.bool_(), IDS: IDS_TYPE, LABELS: IDS_TYPE}


def prepare(context: StageContext) -> None:
    """Render every conversation and each of its answers alone, and plan batches over both."""
    rendered = rendered_rows(context, _pool(context), _RENDERED)
    rendered.check_measurable()
    with RowWriter(context.prepared_dir / ROWS, _COLUMNS) as writer:
        for number, row in _measured(rendered):
            writer.append(row=number, alone=False, input_ids=row.input_ids, labels=row.labels)
        for number, row in _measured(rendered):
            for answer in answers_alone(row):
                writer.append(row=number, alone=True, input_ids=answer.input_ids, labels=answer.labels)
    (context.prepared_dir / _RENDERED).unlink()
    refused = {str(number): reason for number, reason in rendered.refused.items()}
    prepare_rows(context, rendered.truncated, {"refused": refused, "as_text": rendered.as_text})


def _measured(rendered: RenderedTable) -> Iterator[tuple[int, LabelledRow]]:
    """The rows with something to measure, each with its number in the pool."""
    sequences = zip(rendered.positions.tolist(), rendered.rows.each(), rendered.rows.each(LABELS), strict=True)
    for number, ids, labels in sequences:
        row = LabelledRow("", ids.tolist(), labels.tolist())
        if any(loss_mask(row.labels)):
            yield number, row


def run(context: StageContext) -> StageResult | None:
    """Sum the losses of this rank's batches; rank 0 joins those of a row."""
    losses = token_losses(context)
    if losses is None:
        return None
    pool = _pool(context)
    given, alone, tokens = _by_row(context, losses, len(pool))
    measured = tokens > 0
    mean = np.divide(given, tokens, out=np.zeros(len(pool)), where=measured)
    ifd = _ifd(context, given, alone, tokens)
    refused = read_plan(context.prepared_dir / PLAN).facts["refused"]
    reasons = [
        _reason(messages, refused.get(str(number)), known, ratio)
        for number, (known, ratio, (messages,)) in enumerate(
            zip(measured, ifd, iter_columns(pool, ["messages"]), strict=True)
        )
    ]
    columns = {"perplexity": np.where(measured, np.exp(mean), np.nan), "ifd": ifd}
    _write(context, pool, columns, tokens, reasons)
    metrics = {
        "rows": len(pool),
        "measured": int(measured.sum()),
        "nulls": dict(Counter(reason for reason in reasons if reason is not None)),
        "max_length": stage_limit(context).tokens,
        **{f"mean_{name}": _mean(values) for name, values in columns.items()},
        "ifd_above_1": int((ifd > 1).sum()),
        **losses.metrics,
    }
    return StageResult(len(pool), len(pool), {}, metrics, losses.device)


def _pool(context: StageContext) -> datasets.Dataset:
    return datasets.load_from_disk(str(context.parents["pool"] / "data"))


def _by_row(context: StageContext, losses: TokenLosses, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The summed losses of each row's answers given the conversation and alone, float64 [N], and their tokens [N]."""
    file = RowFile(context.prepared_dir / ROWS)
    rows, alone = file.numbers("row"), file.numbers("alone")
    sums = [np.bincount(rows[part], losses.sums[part], num_rows) for part in (~alone, alone)]
    counts = [np.bincount(rows[part], losses.counts[part], num_rows).astype(np.int64) for part in (~alone, alone)]
    assert (counts[0] == counts[1]).all(), "an answer alone has other tokens than in its conversation"
    return sums[0], sums[1], counts[0]


def _ifd(context: StageContext, given: np.ndarray, alone: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The ratio of each row, float64 [N]; nan where nothing was measured, or a loss of 0 would be divided by."""
    unknown = np.full(len(tokens), np.nan)
    if context.identity.get("ifd", "perplexities") == "losses":
        return np.divide(given, alone, out=unknown, where=alone > 0)
    return np.exp(np.divide(given - alone, tokens, out=unknown, where=tokens > 0))


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _reason(messages: Sequence[dict[str, Any]], refused: str | None, is_measured: bool, ifd: float) -> str | None:
    """Why a row has no perplexity, or no IFD; None where it has both."""
    if is_measured:
        return "no_loss_alone" if np.isnan(ifd) else None
    if refused is not None:
        return refused
    answered = any(message["role"] == "assistant" for message in messages)
    return "answer_beyond_max_length" if answered else "no_answer"


def _write(
    context: StageContext,
    pool: datasets.Dataset,
    columns: dict[str, np.ndarray],
    tokens: np.ndarray,
    reasons: Sequence[str | None],
) -> None:
    """Null and the reason where nothing was measured; `columns` are nan there."""
    table: dict[str, Any] = {"id": arrow_column(pool, "id")}
    table |= {name: pa.array(columns[name], pa.float64(), mask=np.isnan(columns[name])) for name in COLUMNS}
    table |= {"tokens": pa.array(tokens, pa.int64()), "reason": pa.array(reasons, pa.string())}
    as_dataset(pa.table(table)).save_to_disk(str(context.data_dir))

"""Makes a tuned model stop where its template ends a turn."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from deita_train.data.rendering import load_tokenizer
from deita_train.data.row_refusal import RowRefused
from deita_train.errors import UserError
from deita_train.models.adapter_files import is_adapter
from deita_train.stages.context import StageContext
from deita_train.stages.rows import answers_of, conversation_row, pair_row
from deita_train.stages.stage_model import model_path
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.training.end_of_turn import check_answer_marks, end_of_turn_ids, stop_at

_FILE = "end_of_turn.json"
_ANSWERS = 200  # a template may end a conversation's last answer differently from the others


def check_end_of_turn(context: StageContext) -> None:
    """Refuse a template by which the model would not learn where an answer begins or ends.

    Raises:
        UserError: a conversation of two turns has a trained header, or an answer without a trained end of turn.
    """
    tokenizer = load_tokenizer(str(model_path(context)), context.identity["chat_template"])
    try:
        check_answer_marks(tokenizer)
    except UserError as error:
        raise UserError(f"chat_template: {error}") from error


def keep_end_of_turn(context: StageContext, rows: datasets.Dataset) -> None:
    """Find the token that ends the first answers, uncut, if it may differ from the end of sequence."""
    if not context.identity.get("end_of_turn"):
        return
    tokenizer = load_tokenizer(str(model_path(context)), context.identity["chat_template"])
    tokenizer.model_max_length = 10**9  # or it would warn about rows longer than the model's context
    ids = end_of_turn_ids(tokenizer, islice(_answers(tokenizer, rows), _ANSWERS))
    tokens = {str(tokenizer.convert_ids_to_tokens(token)): token for token in ids}
    write_json_atomically(context.prepared_dir / _FILE, tokens)


def stop_at_end_of_turn(context: StageContext) -> dict[str, Any]:
    """Make the published model stop there; for an adapter the base's generation_config.json applies."""
    if not context.identity.get("end_of_turn"):
        return {}
    tokens = read_json(context.prepared_dir / _FILE)
    if not is_adapter(context.model_dir):
        stop_at(context.model_dir, list(tokens.values()))
    return {"end_of_turn": list(tokens)}


def _answers(tokenizer: PreTrainedTokenizerBase, rows: datasets.Dataset) -> Iterator[list[int]]:
    """The trained tokens of each answer: those marked by the template, or of a pair what follows its prompt."""
    of_row = _of_conversation if "messages" in rows.column_names else _of_pair
    for row in rows:
        with suppress(RowRefused):  # counted where the rows are rendered to train on
            yield from of_row(tokenizer, row)


def _of_conversation(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> list[list[int]]:
    return answers_of(conversation_row(tokenizer, row, None))


def _of_pair(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> list[list[int]]:
    pair = pair_row(tokenizer, row, None)
    return [pair.chosen_ids, pair.rejected_ids]

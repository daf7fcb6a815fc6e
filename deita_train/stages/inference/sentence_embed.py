"""Stage `sentence_embed`: embeddings by a model of the sentence-transformers library, with its own pooling.

The text of a conversation is that of its messages in order, separated by an empty line, without roles. The
library decides what the model reads of it: if the tokenizer has a chat template, it passes the text as a user message.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase

from deita_train.data.as_text import message_text
from deita_train.data.messages import Message
from deita_train.data.parallel import in_parallel
from deita_train.data.stated_ends import add_stated_ends
from deita_train.errors import UserError
from deita_train.inference.row_file import IDS, IDS_TYPE, RowWriter
from deita_train.inference.shards import Columns
from deita_train.models.remote_code import own_code
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import ROWS, check_dtype, start_ranks
from deita_train.stages.inference.embedding_table import (
    Inputs,
    as_stored,
    plan_inputs,
    pool_rows,
)
from deita_train.stages.inference.walked_embedding import embed_rows
from deita_train.stages.stage_model import model_path, trusts_code

# These models are small and their memory needs cannot be read from a file; batches that are too large are halved.
_GPU_BATCH_TOKENS = 65_536
# The library passes its limit to the tokenizer, which needs a number.
_NO_LIMIT = 2**30


def conversation_text(messages: Sequence[Message]) -> str:
    """The text that represents a conversation."""
    return "\n\n".join(map(message_text, messages))


def prepare(context: StageContext) -> None:
    """Encode every text once, cut as the library cuts it, and plan batches over those not embedded before."""
    encoder = _load(context, torch.device("cpu"))
    pool, truncated = pool_rows(context), 0
    with RowWriter(context.prepared_dir / ROWS, {IDS: IDS_TYPE}) as writer:
        for part in in_parallel(len(pool), partial(_encoded, encoder, pool)):
            for ids, is_cut in part:
                writer.append(input_ids=ids)
                truncated += is_cut
            context.progress.update(writer.num_rows, len(pool), "rows encoded")
    stated = context.runtime["max_batch_tokens"]
    if stated is None and not context.use_cpu:
        stated = _GPU_BATCH_TOKENS
    plan_inputs(replace(context, runtime={**context.runtime, "max_batch_tokens": stated}), truncated)


def run(context: StageContext) -> StageResult | None:
    """Embed this rank's batches; rank 0 joins the results by row."""
    device = start_ranks(context)
    inputs = Inputs.read(context)
    encoder = _load(context, device)
    check_dtype(context, _flops_per_token(encoder))
    pool = pool_rows(context)

    def compute(positions: Sequence[int]) -> Columns:
        rows = inputs.rows(positions)
        batch = [conversation_text(messages) for messages in pool[rows]["messages"]]
        vectors = encoder.encode(batch, batch_size=len(batch), convert_to_tensor=True, show_progress_bar=False)
        return as_stored(context, vectors, rows)

    return embed_rows(context, inputs, None, compute, encoder.max_seq_length, device)


def _encoded(encoder: Any, pool: datasets.Dataset, part: range) -> list[tuple[list[int], bool]]:
    """The token ids of some rows, and whether they are cut."""
    texts = [conversation_text(row["messages"]) for row in pool.select(part)]
    encoded = [(_token_ids(encoder, text), _whole_length(encoder, text)) for text in texts]
    return [(ids, len(ids) < whole) for ids, whole in encoded]


def _token_ids(encoder: Any, text: str) -> list[int]:
    """The token ids that the library gives the model: cut, and with the chat template if there is one."""
    ids: list[int] = encoder.preprocess([text])["input_ids"][0].tolist()
    return ids


def _whole_length(encoder: Any, text: str) -> int:
    """The number of tokens that the model would read without a limit."""
    limit = encoder.max_seq_length
    encoder.max_seq_length = _NO_LIMIT
    try:
        return len(_token_ids(encoder, text))
    finally:
        encoder.max_seq_length = limit


def _flops_per_token(encoder: Any) -> int:
    """Two for each weight that is not looked up in a table."""
    modules = [module for module in encoder.modules() if not isinstance(module, torch.nn.Embedding)]
    return 2 * sum(weight.numel() for module in modules for weight in module.parameters(recurse=False))


def _load(context: StageContext, device: torch.device) -> Any:
    """The library's model in the stage's dtype.

    Raises:
        UserError: the library is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"{context.label}: embedding.sentence_transformer needs the library sentence-transformers ({error}). "
            "Install it with `pip install sentence-transformers` (in a checkout: pip install "
            "'.[sentence-transformers]'), or name a model of transformers in embedding.model."
        ) from error
    folder, trusted = model_path(context), trusts_code(context.identity)
    with own_code(folder, trusted):
        encoder = SentenceTransformer(str(folder), device=str(device), trust_remote_code=trusted)
    encoder.to(device=device, dtype=getattr(torch, context.identity["dtype"]))
    encoder.eval()
    if context.identity["max_length"] is not None:
        encoder.max_seq_length = context.identity["max_length"]
    _complete_texts(encoder, context.label)
    return encoder


def _complete_texts(encoder: Any, label: str) -> None:
    """Let every text have the tokens that the tokenizer's settings state to be added (`stated_ends`).

    Raises:
        UserError: they cannot be added, or the library writes texts by a chat template that leaves them out.
    """
    for module in encoder.modules():
        tokenizer = getattr(module, "tokenizer", None)
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            ends = add_stated_ends(tokenizer, tokenizer.name_or_path)
            if tokenizer is encoder.tokenizer and not ends.are_in(_token_ids(encoder, "a")):
                raise UserError(
                    f"{label}: the tokenizer in {tokenizer.name_or_path} states add_bos_token or add_eos_token, and "
                    "the chat template by which the library writes each text leaves that token out. Remove the chat "
                    "template from the folder, or write the token in it."
                )

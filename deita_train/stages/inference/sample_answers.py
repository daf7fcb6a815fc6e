"""What the evaluated model answers to the first held-out prompts: a sample to read, not a measure."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from deita_train.data.rendering import load_tokenizer, render_prompt
from deita_train.data.row_refusal import RowRefused
from deita_train.inference.greedy import greedy_answers
from deita_train.inference.row_file import LABELS
from deita_train.stages.context import StageContext
from deita_train.stages.inference.rendered_table import RenderedTable
from deita_train.stages.row_limit import stage_limit
from deita_train.stages.rows import answers_of
from deita_train.stages.stage_model import model_path, trusts_code
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.training.end_of_turn import end_of_turn_ids
from deita_train.training.rows import LabelledRow

_FILE = "prompts.json"
_ENDS = 200  # answers in which the end of a turn is looked for


def keep_prompts(context: StageContext, heldout: datasets.Dataset, rendered: RenderedTable) -> None:
    """Write the prompts of the first held-out rows that have different ones, and the tokens that end a turn."""
    if not context.identity.get("samples"):
        return
    tokenizer = _tokenizer(context)
    ends = end_of_turn_ids(tokenizer, islice(_answers(rendered), _ENDS))
    table = heldout.select(rendered.positions)
    prompts = list(islice(_prompts(context, tokenizer, table), context.identity["samples"]))
    write_json_atomically(context.prepared_dir / _FILE, {"prompts": prompts, "ends": ends})


def _answers(rendered: RenderedTable) -> Iterator[list[int]]:
    for ids, labels in zip(rendered.rows.each(), rendered.rows.each(LABELS), strict=True):
        yield from answers_of(LabelledRow("", ids.tolist(), labels.tolist()))


def sample_answers(context: StageContext, model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """By the row's id: its prompt, the greedy answer, and whether the model ended it; each is written to the log."""
    if not context.identity.get("samples"):
        return {}
    kept, tokenizer = read_json(context.prepared_dir / _FILE), _tokenizer(context)
    prompts, stops = kept["prompts"], _stops(kept["ends"], tokenizer, model)
    progress = context.progress.of_step("sample answers")
    progress.update(0, len(prompts), "answers")
    written = greedy_answers(
        model,
        [prompt["ids"] for prompt in prompts],
        context.identity["sample_tokens"],
        stop_ids=stops,
        max_length=_positions(context),
        on_progress=lambda done: progress.update(done, len(prompts), "answers"),
    )
    answers = {}
    for prompt, ids in zip(prompts, written, strict=True):
        text = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
        answers[prompt["id"]] = {
            "prompt": prompt["text"],
            "answer": text,
            "tokens": len(ids),
            "is_ended": bool(ids) and ids[-1] in stops,
        }
        sys.stdout.write(f"{prompt['id']}: {prompt['text']}\n    -> {text}\n")
    return answers


def _tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    trusted = trusts_code(context.identity)
    return load_tokenizer(str(model_path(context)), context.identity["chat_template"], trust_code=trusted)


def _prompts(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, table: datasets.Dataset
) -> Iterator[dict[str, Any]]:
    """Each row's messages up to its first question, without those that came before or leave no room for an answer."""
    seen, positions = set(), _positions(context)
    for row in table:
        roles = [message["role"] for message in row["messages"]]
        if "user" not in roles:
            continue
        asked = row["messages"][: roles.index("user") + 1]
        with suppress(RowRefused):  # the whole conversation can be written, and counted where it cannot
            ids = render_prompt(tokenizer, asked, tools=row.get("tools"))
            if tuple(ids) not in seen and (positions is None or len(ids) < positions):
                seen.add(tuple(ids))
                yield {"id": row["id"], "text": asked[-1]["content"], "ids": ids}


def _positions(context: StageContext) -> int | None:
    return stage_limit(context).positions


def _stops(ends: list[int], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Where the model stops: at its own end of sequence, and where the template ends a turn."""
    config = model.generation_config
    own = None if config is None else config.eos_token_id
    owns = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(token for token in (*owns, tokenizer.eos_token_id, *ends) if token is not None))

"""Answers of a model that runs here: batches over all questions of a turn, shared by the ranks and kept in shards."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from deita_train.data.rendering import load_tokenizer, render_prompt
from deita_train.data.row_refusal import RowRefused
from deita_train.evaluation.dialogues import Asked, Reply, drawing_seed, hold_dialogues
from deita_train.evaluation.temperatures import temperature_of
from deita_train.inference.batches import BatchPlan, fill_batches, read_plan, share_batches, write_plan
from deita_train.inference.generation import Prompt, context_length, generate, stop_ids
from deita_train.inference.shards import Columns, batch_table, collect, write_shard
from deita_train.models.model_shape import generation_batch_tokens
from deita_train.stages.context import StageContext
from deita_train.stages.evaluating.given_answers import GivenAnswers
from deita_train.stages.inference.batched_pass import (
    PLAN,
    SHARDS,
    agree_on_missing,
    batch_tokens,
    from_rank_0,
    gathered,
    load_pass_model,
    log,
    start_ranks,
)
from deita_train.stages.refusals import Refusals
from deita_train.stages.rows import question_prompts
from deita_train.stages.stage_model import model_path, trusts_code

TOO_LONG = "prompt_too_long"
_COLUMNS = ("answer", "tokens", "ended")
_LOG_SECONDS = 30.0


def prepare_questions(context: StageContext, questions: Sequence[Mapping[str, Any]]) -> None:
    """Try every turn of every question with the chat template, and plan the batches of the first turn.

    Raises:
        UserError: the template cannot write more questions than the recipe allows.
    """
    tokenizer, refusals = _tokenizer(context), Refusals.of(context)
    lengths = []
    for number, question in enumerate(questions, start=1):
        context.progress.update(number, len(questions), "questions rendered")
        prompts = refusals.unless_refused(question["id"], partial(question_prompts, tokenizer, question))
        if prompts is not None:
            lengths.append(len(prompts[0]) + context.identity["max_new_tokens"])
    refusals.check(len(questions))
    tokens = batch_tokens(context, max(lengths, default=0), generation_batch_tokens)
    plan = BatchPlan(fill_batches(lengths, tokens), np.array(lengths, np.int32), tokens)
    write_plan(context.prepared_dir / PLAN, plan)


def local_answers(context: StageContext, questions: Sequence[Mapping[str, Any]]) -> GivenAnswers | None:
    """The model's answers on rank 0; None on the others, which answer their share of each turn's batches."""
    model = load_pass_model(context, start_ranks(context), head=True)
    answering = _Answering(context, model, _tokenizer(context), sum(len(question["turns"]) for question in questions))
    replies = hold_dialogues(questions, answering.turn)
    speeds: list[tuple[int, float]] = gathered(context, (answering.written, answering.seconds))
    if context.rank != 0:
        return None
    tokens, seconds = sum(tokens for tokens, _ in speeds), max(seconds for _, seconds in speeds)
    metrics = {
        "max_batch_tokens": answering.max_batch_tokens,
        "seconds_computing": round(seconds, 3),
        "tokens_per_second": tokens / seconds if seconds else None,
    }
    return GivenAnswers(replies, metrics, model.device.type)


@dataclass
class _Answering:
    """A rank at work. `written` tokens and `seconds` are its own, of this attempt."""

    context: StageContext
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    total: int
    written: int = 0
    seconds: float = 0.0
    done: int = 0
    max_batch_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.max_batch_tokens = read_plan(self.context.prepared_dir / PLAN).max_batch_tokens
        self.stops = stop_ids(self.model, self.tokenizer)
        self.longest = context_length(self.model)
        self.told = time.monotonic()

    def turn(self, turn: int, asked: Sequence[Asked]) -> list[Reply]:
        """The replies to one turn of all questions that have it, the same on all ranks."""
        prompts = [self._prompt(one) for one in asked]
        places = [place for place, prompt in enumerate(prompts) if isinstance(prompt, Prompt)]
        usable = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
        lengths = [len(prompt.ids) + prompt.max_new_tokens for prompt in usable]
        # From all questions and not from those that are left, so that a continued stage has the same batches.
        most = self.max_batch_tokens
        plan = BatchPlan(fill_batches(lengths, most), np.array(lengths, np.int32), most)
        folder = self.context.work_dir / SHARDS / f"turn-{turn}"
        self._compute(plan, usable, folder)
        found = dict(zip(places, self._replies(folder, len(usable)), strict=True))
        return [found[place] if place in found else _unasked(prompt) for place, prompt in enumerate(prompts)]

    def _prompt(self, asked: Asked) -> Prompt | Reply:
        identity = self.context.identity
        try:
            ids = render_prompt(self.tokenizer, asked.messages)
        except RowRefused as refusal:
            self._tell(asked, f"{refusal.reason}: {refusal.detail}")
            return Reply(None, reason=refusal.reason)
        room = identity["max_new_tokens"] if self.longest is None else self.longest - len(ids)
        if room < 1:
            self._tell(asked, f"{TOO_LONG}: {len(ids):,} tokens leave no room in a context of {self.longest:,}")
            return Reply(None, reason=TOO_LONG)
        return Prompt(
            ids,
            min(room, identity["max_new_tokens"]),
            temperature_of(identity["temperature"], asked.category),
            drawing_seed(identity["seed"], asked.id, asked.turn),
        )

    def _tell(self, asked: Asked, why: str) -> None:
        if self.context.rank == 0:
            log(f"{asked.id}, turn {asked.turn + 1}, is not asked: {why}")

    def _compute(self, plan: BatchPlan, prompts: Sequence[Prompt], folder: Path) -> None:
        """Answer this rank's share of the missing batches, each kept in a shard of its own."""
        missing = agree_on_missing(self.context, plan, folder, _COLUMNS)
        self.done += len(prompts) - sum(len(plan.batches[number]) for number in missing)
        numbers = share_batches({number: plan.cost(number) for number in missing}, self.context.world_size)
        for number in numbers[self.context.rank]:
            started = time.monotonic()
            positions = plan.batches[number]
            columns = self._answered([prompts[position] for position in positions])
            write_shard(folder, [batch_table(number, positions, columns, 1)])
            self.written += int(columns["tokens"].sum())
            self.seconds += time.monotonic() - started
            # Assumes that the other ranks are as far as this one.
            self.done += len(positions) * self.context.world_size
            self._report()

    def _report(self) -> None:
        done = min(self.done, self.total)
        self.context.progress.update(done, self.total, "answers", f"{self.written:,} tokens written")
        if not sys.stdout.isatty() and time.monotonic() - self.told > _LOG_SECONDS:
            self.told = time.monotonic()
            log(f"rank {self.context.rank}: {done:,} of {self.total:,} answers, {self.written:,} tokens written")

    def _answered(self, prompts: Sequence[Prompt]) -> Columns:
        written = dict(
            pair for batch in generate(self.model, prompts, self.stops, max_rows=len(prompts)) for pair in batch
        )
        ordered = [written[place] for place in range(len(prompts))]
        texts = [str(self.tokenizer.decode(one.ids, skip_special_tokens=True)).strip() for one in ordered]
        return {
            "answer": np.array(texts, dtype=object),
            "tokens": np.array([len(one.ids) for one in ordered], dtype=np.int64),
            "ended": np.array([one.ended for one in ordered], dtype=bool),
        }

    def _replies(self, folder: Path, number: int) -> list[Reply]:
        """All ranks' answers of a turn, read by rank 0 once all ranks have written theirs."""
        if self.context.world_size > 1:
            torch.distributed.barrier()
        columns = collect(folder, number) if self.context.rank == 0 and number else {}
        rows = zip(*(columns[name].tolist() for name in _COLUMNS), strict=True) if columns else ()
        found: list[Reply] = from_rank_0(self.context, [Reply(*row) for row in rows])
        return found


def _unasked(prompt: Prompt | Reply) -> Reply:
    assert isinstance(prompt, Reply), "every prompt was answered"
    return prompt


def _tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    trusted = trusts_code(context.identity)
    return load_tokenizer(str(model_path(context)), context.identity["chat_template"], trust_code=trusted)

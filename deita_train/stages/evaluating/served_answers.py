"""Answers of a model behind an endpoint, by the chat client: every one is kept, and none is asked for twice."""

from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.evaluation.dialogues import Asked, Reply, hold_dialogues
from deita_train.evaluation.temperatures import temperature_of
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest, estimated_tokens
from deita_train.stages.asking.asker import spent, stage_asker
from deita_train.stages.context import StageContext
from deita_train.stages.evaluating.given_answers import GivenAnswers


def served_answers(context: StageContext, questions: Sequence[Mapping[str, Any]]) -> GivenAnswers:
    """Ask the endpoint everything, one turn of all questions after another."""
    asker = stage_asker(context, sum(len(question["turns"]) for question in questions))

    def answer(_: int, asked: Sequence[Asked]) -> list[Reply]:
        return [_reply(outcome) for outcome in asker.ask([_request(context.identity, one) for one in asked])]

    replies = hold_dialogues(questions, answer)
    return GivenAnswers(replies, spent(asker))


def _request(identity: Mapping[str, Any], asked: Asked) -> ChatRequest:
    temperature = temperature_of(identity["temperature"], asked.category)
    return ChatRequest(asked.messages, temperature, identity["max_new_tokens"])


def _reply(outcome: Answer | Failure) -> Reply:
    if isinstance(outcome, Failure):
        return Reply(None, reason=outcome.reason)
    tokens = outcome.completion_tokens
    # Servers that say nothing of the end have not been cut, as far as anybody knows.
    return Reply(
        outcome.text.strip(),
        estimated_tokens(outcome.text) if tokens is None else tokens,
        ended=outcome.finish_reason != "length",
    )

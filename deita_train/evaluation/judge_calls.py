"""How many calls a benchmark makes, and about how many tokens they have, before anything is asked.

Nothing heavy is imported, so that `deita-train plan` can tell it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.evaluation.judge_prompts import COMPARE, PAIR
from deita_train.llm.requests import estimated_tokens

MAX_TOKENS = 2048
"""Of a judge's rating or of its choice in a pair, as FastChat asks for."""
# A weighted judgement is read from the first token; a verdict leaves room for a model that thinks aloud first.
WEIGHTED_TOKENS, VERDICT_TOKENS = 1, 1024
# How FastChat's two calls of a pair are called here: the model's answer first, and second.
ORDERS = (True, False)


@dataclass(frozen=True)
class Calls:
    """What a stage asks.

    Attributes:
        calls: as expected.
        most_calls: if no verdict can be read.
        prompt_tokens: of the expected calls, estimated from the number of characters.
        answer_tokens: of the expected calls, if every answer is as long as it may be.
    """

    calls: int
    most_calls: int
    prompt_tokens: int
    answer_tokens: int


def calls_of_answers(questions: Iterable[Mapping[str, Any]], longest: int) -> Calls:
    """The calls for a model's answers: one for each turn, with all that was said before it.

    Args:
        questions: each with its `turns` and its `system` message.
        longest: most tokens of an answer.
    """
    calls = tokens = 0
    for row in questions:
        system = [row["system"]] if row["system"] else []
        for turn in range(len(row["turns"])):
            calls += 1
            tokens += estimated_tokens(*system, *row["turns"][: turn + 1]) + turn * longest
    return Calls(calls, calls, tokens, calls * longest)


def calls_of_judge(identity: Mapping[str, Any], questions: Iterable[Mapping[str, Any]], longest: int) -> Calls:
    """The calls of a stage that judges.

    Args:
        identity: of the stage.
        questions: each with its `turns`, its `references` and the `baseline` that it is compared with.
        longest: most tokens of an answer that is judged.
    """
    counted = _compared if identity["way"] == COMPARE else _turns
    calls, tokens = counted(identity, questions, longest)
    return Calls(calls, calls * (1 + identity["ask_again"]), tokens, calls * _verdict_tokens(identity))


def _compared(identity: Mapping[str, Any], questions: Iterable[Mapping[str, Any]], longest: int) -> tuple[int, int]:
    """Calls and tokens of prompts, one for each question."""
    rows = list(questions)
    own = estimated_tokens(*_texts(identity["prompts"]["texts"]))
    texts = [text for row in rows for text in (row["turns"][0], row["baseline"] or "")]
    return len(rows), estimated_tokens(*texts) + len(rows) * (own + longest)


def _turns(identity: Mapping[str, Any], questions: Iterable[Mapping[str, Any]], longest: int) -> tuple[int, int]:
    """Calls and tokens of prompts, one for each turn and order."""
    prompts = identity["prompts"]
    own = estimated_tokens(*_texts(prompts["texts"]))
    own = own if not prompts["fastchat"] else own // len(prompts["texts"])
    orders, shown = (len(ORDERS), 2) if identity["way"] == PAIR else (1, 1)
    calls = tokens = 0
    for row in questions:
        for turn in range(len(row["turns"])):
            texts = [*row["turns"][: turn + 1], *(text for text in (row["references"] or ())[: turn + 1] if text)]
            calls += orders
            tokens += orders * (own + estimated_tokens(*texts) + shown * longest * (turn + 1))
    return calls, tokens


def _verdict_tokens(identity: Mapping[str, Any]) -> int:
    if identity["way"] != COMPARE:
        return MAX_TOKENS
    return WEIGHTED_TOKENS if identity["weighted"] else VERDICT_TOKENS


def _texts(texts: Mapping[str, Any]) -> list[str]:
    return [part for text in texts.values() for part in (text.values() if isinstance(text, Mapping) else [text])]

"""Sample rows in the columns of published datasets, for a rehearsal that cannot reach them.

The texts are the quickstart's generated ones; columns and oddities are those of the published files.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deita_train.data.quickstart import make_pool, make_preferences, make_questions
from deita_train.data.quickstart.rows import make_scorer_rows
from deita_train.scoring.prompts import COMPLEXITY_PROMPT, QUALITY_PROMPT

Row = dict[str, Any]
Make = Callable[[int], list[Row]]
_SEED = 11
# The released selections have rows of up to 972 messages.
_LONG_CHAT_MESSAGES = 900
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass(frozen=True)
class SampleKind:
    """Rows of one form.

    Attributes:
        make: gives so many of them.
        suffix: of a file with such rows, as it is published.
        words: what the rows are like.
    """

    make: Make
    suffix: str
    words: str


def _chats(number: int) -> list[list[dict[str, str]]]:
    """Conversations of one to six messages."""
    return [row["messages"] for row in make_pool(number, _SEED)]


def sharegpt_rows(number: int) -> list[Row]:
    """ShareGPT rows: the first begins with a turn of gpt, the second is very long, the third has an empty message."""
    chats = _chats(number)
    chats[0] = [{"role": "assistant", "content": "Hello, how can I help you?"}, *chats[0]]
    if number > 3:
        chats[1] = [message for turn in range(1, _LONG_CHAT_MESSAGES // 2 + 1) for message in _short_turn(turn)]
        chats[2] = [{"role": "user", "content": "  "}, *chats[2][1:]]
    return [
        {
            "id": f"sample_{place}",
            "conversations": [{"from": _SPEAKERS[one["role"]], "value": one["content"]} for one in chat],
            "source": "sharegpt",
        }
        for place, chat in enumerate(chats)
    ]


def _short_turn(turn: int) -> list[dict[str, str]]:
    asked, answered = f"What is twice {turn}?", f"It is {2 * turn}."
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def message_rows(number: int) -> list[Row]:
    """Rows of `messages`, with the prompt beside them as published SFT data has it."""
    return [
        {"prompt": chat[0]["content"], "prompt_id": _digest(chat[0]["content"], place), "messages": chat}
        for place, chat in enumerate(_chats(number))
    ]


def ultrafeedback_rows(number: int) -> list[Row]:
    """Pairs in the columns of ultrafeedback_binarized: both conversations with the prompt, and it as text besides."""
    return [_ultrafeedback_row(row, place) for place, row in enumerate(make_preferences(number, _SEED))]


def _ultrafeedback_row(row: Row, place: int) -> Row:
    chosen, rejected = (
        [*row["prompt"], {"role": "assistant", "content": row[answer]}] for answer in ("chosen", "rejected")
    )
    return {
        "prompt": row["prompt"][-1]["content"],
        "prompt_id": _digest(row["prompt"][-1]["content"], place),
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    }


def _pair_rows(form: str, number: int) -> list[Row]:
    """Pairs in the columns of one of the forms of preference data."""
    rows = []
    for place, row in enumerate(make_preferences(number, _SEED)):
        asked, chosen, rejected = row["prompt"][-1]["content"], row["chosen"], row["rejected"]
        turns = {"conversations": [{"from": "human", "value": asked}]}
        both = {"chosen": chosen, "rejected": rejected}
        rows.append(
            {
                "sharegpt_pairs": {
                    **turns,
                    **{name: {"from": "gpt", "value": text} for name, text in both.items()},
                },
                "prompt_pairs": {"prompt": asked, **both},
                "question_pairs": {"question": asked, **both},
                "instruction_pairs": {"instruction": asked, **both},
                "transcript_pairs": {name: f"\n\nHuman: {asked}\n\nAssistant: {text}" for name, text in both.items()},
                "ultrafeedback": _ultrafeedback_row(row, place),
            }[form]
        )
    return rows


def _exchange_rows(form: str, number: int) -> list[Row]:
    """Conversations of one exchange in columns."""
    asked, answered = {
        "alpaca": ("instruction", "output"),
        "prompt_completion": ("prompt", "completion"),
        "instruction_response": ("instruction", "response"),
        "question_answer": ("question", "answer"),
        "query_response": ("query", "response"),
    }[form]
    return [{asked: chat[0]["content"], answered: chat[1]["content"]} for chat in _chats(number)]


def _scorer_rows(dimension: str, number: int) -> list[Row]:
    """Rows of `input` and `target`, the whole prompt and its digit, as the released scorer data has them."""
    prompt = COMPLEXITY_PROMPT if dimension == "complexity" else QUALITY_PROMPT
    return [
        {
            "input": prompt.format(instruction=row["instruction"], output=row.get("response")),
            "target": str(row["score"]),
        }
        for row in make_scorer_rows(dimension, number, _SEED)  # type: ignore[arg-type]
    ]


def _mt_bench_rows(number: int) -> list[Row]:
    """Questions of two turns, with references for some."""
    rows = make_questions(number + 1, _SEED)
    return [
        {
            "category": "math" if place % 2 else "writing",
            "prompt": [first["turns"][0], second["turns"][0]],
            "reference": [first["reference"][0], second["reference"][0]] if place % 2 else [],
            "prompt_id": 1000 + place,
        }
        for place, (first, second) in enumerate(pairwise(rows))
    ]


def _alpaca_eval_rows(number: int) -> list[Row]:
    """Instructions with a baseline's output."""
    return [
        {
            "instruction": row["turns"][0],
            "output": row["reference"][0],
            "generator": "text_davinci_003",
            "dataset": "helpful_base",
        }
        for row in make_questions(number, _SEED)
    ]


def _digest(text: str, place: int) -> str:
    return hashlib.sha256(f"{place}:{text}".encode()).hexdigest()


_SHAREGPT = SampleKind(sharegpt_rows, ".json", "ShareGPT rows as JSON Lines in a .json file")
_MESSAGES = SampleKind(message_rows, ".jsonl", "rows of messages")
_ULTRAFEEDBACK = SampleKind(ultrafeedback_rows, ".jsonl", "pairs in the columns of ultrafeedback_binarized")
_PUBLISHED: Mapping[str, SampleKind] = {
    **dict.fromkeys(
        (
            "hkust-nlp/deita-6k-v0", "hkust-nlp/deita-10k-v0", "hkust-nlp/deita-redundant-pool-data",
            "AndrewZeng/deita_sota_pool",
        ),
        _SHAREGPT,
    ),
    "HuggingFaceH4/deita-10k-v0-sft": _MESSAGES,
    "HuggingFaceH4/ultrafeedback_binarized": _ULTRAFEEDBACK,
    "HuggingFaceH4/mt_bench_prompts": SampleKind(_mt_bench_rows, ".jsonl", "MT-Bench's columns"),
    "tatsu-lab/alpaca_eval": SampleKind(_alpaca_eval_rows, ".json", "AlpacaEval's columns"),
}  # fmt: skip
_EXCHANGES = ("alpaca", "prompt_completion", "instruction_response", "question_answer", "query_response")


def sample_of(dataset: str, role: str, form: str | None, dimension: str | None) -> tuple[SampleKind, bool]:
    """The sample that stands in for a dataset, and whether its columns are known to be the dataset's.

    Args:
        dataset: its id or URL.
        role: what it is read as: conversations, pairs, questions or scorer.
        form: its format, where the recipe states one.
        dimension: of a scorer's data.
    """
    if dataset in _PUBLISHED and not (role == "pairs" and form not in (None, "ultrafeedback")):
        return _PUBLISHED[dataset], True
    if role == "pairs":
        name = form or "ultrafeedback"
        return SampleKind(lambda number: _pair_rows(name, number), ".jsonl", f"pairs in the form {name}"), False
    if role == "questions":
        return SampleKind(_alpaca_eval_rows, ".jsonl", "instructions with an output and a generator"), False
    if role == "scorer" and dimension is not None:
        of = dimension
        published = dataset == f"hkust-nlp/deita-{of}-scorer-data"
        return SampleKind(lambda number: _scorer_rows(of, number), ".json", "input and target"), published
    if form in _EXCHANGES:
        name = form
        return SampleKind(lambda number: _exchange_rows(name, number), ".jsonl", f"rows in the form {name}"), False
    return (_SHAREGPT if form == "sharegpt" else _MESSAGES), False

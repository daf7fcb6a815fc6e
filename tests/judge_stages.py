"""What the tests of judging share: questions, answers, and a stage over them in this process."""

import datasets

from deita_train.data.questions import FEATURES as QUESTION_FEATURES
from deita_train.evaluation.judge_prompts import COMPARE, own_prompts
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.evaluating import judge
from deita_train.stages.evaluating.generate import FEATURES as ANSWER_FEATURES
from deita_train.stages.evaluating.judge_rows import FEATURES

assert FEATURES


def question(name, *turns, **fields):
    return {**dict.fromkeys(QUESTION_FEATURES), "id": name, "turns": list(turns), **fields}


def write_questions(folder, questions):
    datasets.Dataset.from_list(questions, features=QUESTION_FEATURES).save_to_disk(str(folder / "data"))
    return folder


def write_answers(folder, questions, answer):
    """The answers of a model, by a function of the question's id and the turn."""
    rows = [
        {"id": row["id"], "turn": turn, "prompt": text, "answer": answer(row["id"], turn), "tokens": 3, "ended": True,
         "reason": None}
        for row in questions
        for turn, text in enumerate(row["turns"])
    ]  # fmt: skip
    datasets.Dataset.from_list(rows, features=ANSWER_FEATURES).save_to_disk(str(folder / "data"))
    return folder


def identity_of(way, **changes):
    identity = {
        "model": {"served": "m"}, "benchmark": "alpaca_eval" if way == COMPARE else "judged", "way": way,
        "prompts": own_prompts(way).identity(), "ask_again": 2, "seed": 1, "answers_of": "sft", "baseline": None,
    }  # fmt: skip
    if way == COMPARE:
        identity |= {"weighted": False, "terms": None}
    return {**identity, **changes}


def endpoint_of(url, **changes):
    return {"name": "judge", "base_url": url, "model": "m", "max_in_flight": 8, "deadline_seconds": 30.0,
            "max_attempts": 2, **changes}  # fmt: skip


def judge_context(folder, identity, endpoint, parents, **runtime):
    """A stage that judges; its work folder and the store of answers are in `folder`."""
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    how = {"answers": str(folder / "answers"), "endpoint": endpoint, "section": f"evaluate.{identity['benchmark']}"}
    return StageContext("judge", "judged.sft", identity, {**how, **runtime}, parents, work, 0, 1, Progress(None))


def judged(context):
    """The table's rows, and the metrics."""
    result = judge.run(context)
    rows = list(datasets.load_from_disk(str(context.data_dir)))
    assert result.rows_in == result.rows_out == len(rows)
    return rows, result.metrics

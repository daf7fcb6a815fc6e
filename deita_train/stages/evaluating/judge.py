"""Stage `judge`: a chat model rates a model's answers, or compares them with a baseline's."""

from collections import Counter

import datasets

from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import COMPARE
from deita_train.stages.asking.asker import spent, stage_asker
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.evaluating.judge_comparisons import judged_comparisons
from deita_train.stages.evaluating.judge_notes import TITLES, notes
from deita_train.stages.evaluating.judge_rows import FEATURES
from deita_train.stages.evaluating.judge_turns import judged_turns


def run(context: StageContext) -> StageResult:
    """Ask about every answer, and write a row for each."""
    asker = stage_asker(context)
    judge = judged_comparisons if context.identity["way"] == COMPARE else judged_turns
    judgement = judge(context, asker)
    rows = [dict(row) for row in judgement.rows]
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(str(context.data_dir))
    for name, content in judgement.files.items():
        context.files_dir.mkdir(exist_ok=True)
        (context.files_dir / name).write_text(content, encoding="utf-8")
    reasons = dict(Counter(row["reason"] for row in judgement.rows if row["reason"] is not None))
    if not judgement.results:
        raise UserError(f"{context.label}: not one answer has a score: {reasons}. The stage's log says more.")
    metrics = {
        "title": TITLES[context.identity["benchmark"]],
        "results": {name: result.as_metric() for name, result in judgement.results.items()},
        "judged": len(judgement.rows),
        "without_score": reasons,
        **judgement.facts,
        **spent(asker),
    }
    metrics["notes"] = notes(context.identity, metrics)
    return StageResult(len(judgement.rows), len(judgement.rows), metrics=metrics)

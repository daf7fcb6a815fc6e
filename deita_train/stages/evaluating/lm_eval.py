"""Stage `lm_eval`: tasks of lm-evaluation-harness, their requests planned and kept like the batches of any pass.

The harness writes the requests and judges the answers; what lies between, which batch is computed by which rank and
which is done already, is ours. So ranks share the work on any device, and a killed stage asks nothing twice.
"""

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.data.rendering import load_tokenizer
from deita_train.evaluation.open_llm import OPEN_LLM_V1, OPEN_LLM_V1_TASKS
from deita_train.evaluation.task_results import headlines, notes, table_rows
from deita_train.inference.batches import Batches, BatchPlan, read_plan, write_plan
from deita_train.inference.shards import Columns
from deita_train.number_text import plural
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import PLAN, load_pass_model, run_pass, start_ranks
from deita_train.stages.stage_model import model_path, trusts_code
from deita_train.stages.validation import StageToValidate, is_repeated

if TYPE_CHECKING:  # the harness takes seconds to import, and may not be installed
    from deita_train.evaluation.harness_requests import Request, Template
    from deita_train.evaluation.harness_tasks import LoadedTasks

_REQUESTS = "requests.parquet"
_ANSWER = "answer"
_TEXT, _NUMBER = datasets.Value("string"), datasets.Value("float64")
FEATURES = datasets.Features(
    {name: _TEXT for name in ("id", "task", "question", "target", "answer", "metric")}
    | {"score": _NUMBER, "reason": _TEXT}
)
"""One row for each question: its prompt without examples, the right answer, the model's, and its score by `metric`."""


def validate(stage: StageToValidate) -> Iterator[str]:
    """The number of questions, once everything that does not need the model has been tried.

    Raises:
        UserError: a task is unknown, its data is not at hand, or it cannot be run here.
    """
    settings = {name: stage.identity[name] for name in ("tasks", "num_fewshot", "limit", "seed")}
    if is_repeated({"lm_eval": settings, "include": stage.runtime["include"], "data": stage.runtime["data"]}):
        return
    section, limit = stage.runtime["section"], stage.identity["limit"]
    if find_spec("lm_eval") is None:  # planned for another machine; for this one the plan would have refused it
        yield f"{section}: lm-eval is not installed here, so the tasks and their data are not tried"
        return
    with tempfile.TemporaryDirectory() as folder, _without_progress_bars():
        loaded = _load_tasks(stage.identity, stage.runtime, Path(folder))
        counts = [len(task.eval_docs) for task in loaded.tasks.values()]
    questions = sum(counts) if limit is None else sum(min(limit, count) for count in counts)
    yield f"{section}: {plural(questions, 'question')} of {plural(len(counts), 'task')} for each model"


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def prepare(context: StageContext) -> None:
    """Load the tasks, write their requests, and plan batches; everything that can be missing is missed here."""
    from deita_train.evaluation.harness_requests import build_requests, plan_requests, token_counts

    loaded = _load_tasks(context.identity, context.runtime, context.work_dir / "harness")
    tokenizer = _tokenizer(context)
    requests = build_requests(loaded.tasks, context.identity["limit"], _template(context, tokenizer), *_names(context))
    lengths = token_counts(requests, tokenizer)
    batches = plan_requests(requests, lengths, context.identity["batch_size"])
    columns = {
        name: [getattr(request, name) for request in requests] for name in ("task", "document", "type", "arguments")
    }
    pq.write_table(pa.table(columns), context.prepared_dir / _REQUESTS, compression="zstd")
    widest = max(len(batch) * lengths[batch[0]] for batch in batches)
    write_plan(context.prepared_dir / PLAN, BatchPlan(Batches.of(batches), np.array(lengths, np.int32), widest))


def run(context: StageContext) -> StageResult | None:
    """Answer this rank's batches; rank 0 lets the harness judge the answers of all."""
    from lm_eval.models.huggingface import HFLM

    from deita_train.evaluation.harness_requests import answered, cut_requests

    device = start_ranks(context)
    requests = _read_requests(context.prepared_dir / _REQUESTS)
    model = load_pass_model(context, device, head=True)
    asked = HFLM(
        pretrained=model, tokenizer=_tokenizer(context), backend="causal", batch_size=context.identity["batch_size"]
    )
    lengths = read_plan(context.prepared_dir / PLAN).lengths.tolist()
    cut = cut_requests(requests, lengths, asked, context.runtime["section"])

    def compute(positions: Sequence[int]) -> Columns:
        batch = [requests[position] for position in positions]
        seed = context.identity["seed"] + zlib.crc32(batch[0].arguments.encode())
        return {_ANSWER: np.array(answered(asked, batch, seed), dtype=object)}

    result = run_pass(context, model, compute, (_ANSWER,))
    if result is None:
        return None
    answers = list(result.columns[_ANSWER])
    found = _judge(context, requests, answers, cut)
    rows = found.pop("rows")
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(str(context.data_dir))
    metrics = {**found, "requests": len(requests), **result.metrics}
    return StageResult(len(rows), len(rows), metrics=metrics, device=device.type)


def _judge(context: StageContext, requests: Sequence["Request"], answers: Sequence[str], cut: int) -> dict[str, Any]:
    """The table's rows, and the metrics of the tasks."""
    from deita_train.evaluation.harness_outcome import outcomes
    from deita_train.evaluation.harness_requests import AnsweredModel

    identity = context.identity
    loaded = _load_tasks(identity, context.runtime, context.work_dir / "harness")
    template = _template(context, _tokenizer(context))
    model = AnsweredModel(requests, answers, template, _names(context)[0])
    tasks, groups = outcomes(loaded, model, identity["limit"], templated=template is not None)
    leaderboard = OPEN_LLM_V1 in identity["tasks"]
    return {
        "rows": table_rows(tasks, {task.name: task.metric for task in OPEN_LLM_V1_TASKS} if leaderboard else {}),
        "title": "Open LLM Leaderboard" if identity["tasks"] == [OPEN_LLM_V1] else "lm-evaluation-harness",
        "results": {name: result.as_metric() for name, result in headlines(loaded.by_name, tasks, groups).items()},
        "notes": notes(
            identity["harness"],
            tasks,
            identity["tasks"],
            templated=template is not None,
            limit=identity["limit"],
            num_fewshot=identity["num_fewshot"],
            cut=cut,
        ),
        "tasks": {name: task.as_metric() for name, task in tasks.items()},
    }


def _load_tasks(identity: Mapping[str, Any], runtime: Mapping[str, Any], folder: Path) -> "LoadedTasks":
    from deita_train.evaluation.harness_tasks import TaskSettings, load_tasks

    return load_tasks(
        TaskSettings(
            section=runtime["section"],
            tasks=identity["tasks"],
            include=runtime["include"],
            data=runtime["data"],
            num_fewshot=identity["num_fewshot"],
            seed=identity["seed"],
            folder=folder,
        )
    )


def _read_requests(file: Path) -> list["Request"]:
    from deita_train.evaluation.harness_requests import Request

    columns = pq.read_table(file)
    values = (columns[name].to_pylist() for name in ("task", "document", "type", "arguments"))
    return [Request(*one) for one in zip(*values, strict=True)]


def _tokenizer(context: StageContext) -> Any:
    trusted = trusts_code(context.identity)
    return load_tokenizer(str(model_path(context)), context.identity["chat_template"], trust_code=trusted)


def _template(context: StageContext, tokenizer: Any) -> "Template | None":
    """What writes the prompts, where the recipe wants the chat template."""
    from deita_train.evaluation.harness_requests import chat_template_of

    if context.identity["chat_template"] is None:
        return None
    return chat_template_of(tokenizer, context.runtime["section"])


def _names(context: StageContext) -> tuple[str, str]:
    """A name for the tokenizer, and the section's for messages."""
    return context.label, context.runtime["section"]

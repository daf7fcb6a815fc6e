"""What the harness makes of answers: its own filters, metrics and aggregation, as plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from deita_train.evaluation.harness_requests import AnsweredModel
from deita_train.evaluation.harness_tasks import LoadedTasks
from deita_train.evaluation.task_results import GroupOutcome, Question, TaskOutcome


def outcomes(
    loaded: LoadedTasks, model: AnsweredModel, limit: int | None, *, templated: bool
) -> tuple[dict[str, TaskOutcome], dict[str, GroupOutcome]]:
    """Each task's and each aggregating group's outcome by name.

    Args:
        loaded: the tasks, freshly loaded, so that they ask what was asked.
        model: has the answers.
        limit: the first so many questions of each task.
        templated: whether the requests were written by a chat template.
    """
    found = evaluate(
        lm=model,
        task_dict=loaded.as_task_dict,
        limit=limit,
        bootstrap_iters=0,  # intervals are our own, over questions
        apply_chat_template=templated,
        fewshot_as_multiturn=templated,
    )
    tasks = {name: _task(name, task, found) for name, task in loaded.tasks.items()}
    groups = {name: _group(group, found["results"][name]) for name, group in loaded.groups.items()}
    return tasks, groups


def _task(name: str, task: Any, found: Mapping[str, Any]) -> TaskOutcome:
    samples = found["samples"][name]
    return TaskOutcome(
        name=name,
        shots=int(found["n-shot"][name]),
        version=str(found["versions"][name]),
        available=int(found["n-samples"][name]["original"]),
        figures=_figures(found["results"][name]),
        higher_is_better=dict(found["higher_is_better"][name]),
        questions=_questions(task, samples),
    )


def _group(group: Any, figures: Mapping[str, Any]) -> GroupOutcome:
    return GroupOutcome(
        group.name, [task.task_name for task in group.get_all_tasks()], list(group.child_names), _figures(figures)
    )


def _figures(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by "metric,filter"."""
    names = [name for name in values if "," in name and "_stderr," not in name]
    return {name: number for name in names if (number := _number(values[name])) is not None}


def _questions(task: Any, samples: Sequence[Mapping[str, Any]]) -> list[Question]:
    """The questions in order; a sample is there for each filter."""
    by_document: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_document.setdefault(int(sample["doc_id"]), []).append(sample)
    return [
        Question(
            document=document,
            text=question_text(task, filtered[0]["doc"]),
            target=_target(task, filtered[0]),
            answer=_answer(task, filtered[0]),
            scores={
                f"{metric},{sample['filter']}": number
                for sample in filtered
                for metric in sample["metrics"]
                if (number := _number(sample[metric])) is not None
            },
        )
        for document, filtered in sorted(by_document.items())
    ]


def question_text(task: Any, document: Mapping[str, Any]) -> str:
    """What is asked, without examples: the field that the task names for finding copies of it, else its prompt.

    Of a text whose likelihood is measured, the text.
    """
    field = getattr(task.config, "doc_to_decontamination_query", None)
    if isinstance(field, str) and field in document:
        return str(document[field])
    text = task.doc_to_text(document)
    if isinstance(text, int):  # the question lies in the choices
        return "\n".join(map(str, task.doc_to_choice(document)))
    return str(text) or str(task.doc_to_target(document))


def _target(task: Any, sample: Mapping[str, Any]) -> str:
    """The right answer as text."""
    target = sample["target"]
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int) and not task.multiple_input:
        choices = task.doc_to_choice(sample["doc"])
        return str(choices[target]) if 0 <= target < len(choices) else str(target)
    return str(target)


def _answer(task: Any, sample: Mapping[str, Any]) -> str | None:
    """The likeliest choice, or the generated text as the task reads it; None where the answer is only a number."""
    if task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input:
        choices = task.doc_to_choice(sample["doc"])
        likelihoods = [float(response[0]) for response in sample["filtered_resps"]][: len(choices)]
        return str(choices[int(np.argmax(likelihoods))])
    response = sample["filtered_resps"][0] if sample["filtered_resps"] else None
    return response if isinstance(response, str) else None


def _number(value: Any) -> float | None:
    """A single number as a float; None for anything else, such as a pair that only all questions together use."""
    return float(value) if isinstance(value, bool | int | float | np.bool_ | np.number) else None

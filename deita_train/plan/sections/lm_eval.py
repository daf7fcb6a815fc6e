"""Section `evaluate.lm_eval:`, tasks of lm-evaluation-harness for each model: `lm_eval.<model>`."""

from collections.abc import Mapping
from typing import Any

from deita_train.plan.chat_templates import ChatTemplate
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.recipe.evaluation_sections import Evaluate, LmEval

WHERE = "evaluate.lm_eval"


def add_lm_eval(builder: Builder, evaluate: Evaluate, models: Mapping[str, Model], template: ChatTemplate) -> None:
    """Add the tasks of each model; none where the harness is not installed and the section is `optional`."""
    section = evaluate.lm_eval
    assert section is not None
    version = builder.inputs.harness(WHERE, optional=section.optional)
    if version is None:
        return
    dtype, how = builder.of_pass(evaluate, "evaluate")
    of_tasks, locations = _tasks(builder, section)
    of_template = {"chat_template": template.text if section.chat_template else None}
    # Batches are of questions, not of tokens.
    runtime = {name: value for name, value in how.items() if name != "max_batch_tokens"}
    for name, model in models.items():
        identity = {
            "harness": version,
            **of_tasks,
            **of_template,
            "resize": section.chat_template and name == "base" and _is_resized(builder),
            **dtype,
            **model.identity,
        }
        where = {"section": WHERE, **locations, **model.location}
        builder.add(Node(f"lm_eval.{name}", "lm_eval", identity, {**runtime, **where}, model.parents))


def _tasks(builder: Builder, section: LmEval) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of the tasks decides the figures, and where their files lie."""
    folders = [builder.inputs.task_folder(name, f"{WHERE}.include") for name in section.folders]
    data = {
        dataset: builder.inputs.folder(name, f"{WHERE}.data.{dataset}")
        for dataset, name in (section.data or {}).items()
    }
    identity = {
        "tasks": section.tasks,
        "include": [identity for identity, _ in folders],
        "data": {dataset: identity for dataset, (identity, _) in data.items()},
        "num_fewshot": section.num_fewshot,
        "limit": section.limit,
        "batch_size": section.batch_size,
        "seed": builder.seed(section.seed),
    }
    return identity, {
        "include": [location for _, location in folders],
        "data": {dataset: location for dataset, (_, location) in data.items()},
    }


def _is_resized(builder: Builder) -> bool:
    """Whether the trained models have tokens that the base has not."""
    tuned = [builder.nodes[label] for label in ("sft", "dpo") if label in builder.nodes]
    return bool(tuned and tuned[0].identity["resize"])

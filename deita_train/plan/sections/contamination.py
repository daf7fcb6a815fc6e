"""Which rows repeat a benchmark's questions: of the data of a recipe with benchmarks, and before a selection."""

from collections.abc import Mapping
from typing import Any

from deita_train.data.places import source_name
from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.sections.answers import add_questions
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.evaluation_sections import QUESTION_SETS, Evaluate, QuestionSet
from deita_train.recipe.schema import Select

# What is looked through -> the stage that has it.
_DATA = {
    "pool": "pool",
    "selected": "select",
    "sft_data": "sft_data",
    "dpo_data": "dpo_data",
    "heldout": "heldout_data",
}
# A stage that has the documents of lm_eval's tasks reads them for one model; they are the same for each.
_LM_EVAL = "lm_eval"


def add_contamination(builder: Builder, evaluate: Evaluate) -> None:
    """Look for the questions of every benchmark in all data of the recipe: `contamination.<data>`."""
    if evaluate.contamination is False:
        return
    benchmarks = _benchmarks(builder, evaluate)
    data = {name: builder.nodes[label] for name, label in _DATA.items() if label in builder.nodes}
    if evaluate.contamination and not data:
        raise builder.inputs.error(
            "evaluate.contamination",
            "there is no data to look for questions in: no pool:, no sft.data: or dpo:, and no evaluate.heldout:. "
            "Leave it out.",
        )
    for name, node in data.items() if benchmarks else ():
        _add(builder, f"contamination.{name}", node, benchmarks)


def add_decontamination(builder: Builder, select: Select, pool: Node) -> Node | None:
    """Add the stage that finds the pool's rows to remove before a selection; None where the section names nothing."""
    if select.decontaminate is None:
        return None
    benchmarks: dict[str, tuple[str | None, Node]] = {}
    files = [name for name in select.decontaminate if name not in QUESTION_SETS]
    for number, name in enumerate(select.decontaminate):
        where = f"select.decontaminate.{number}"
        if name in QUESTION_SETS:
            benchmarks[f"questions.{name}"] = name, _stated_questions(builder, name, where)
        else:
            role = f"questions.file{files.index(name) + 1}"
            benchmarks[role] = source_name(name), _file_questions(builder, role, name, where)
    return _add(builder, "decontaminate", pool, benchmarks)


def _add(builder: Builder, label: str, data: Node, benchmarks: Mapping[str, tuple[str | None, Node]]) -> Node:
    identity: dict[str, Any] = {"benchmarks": {role: name for role, (name, _) in benchmarks.items()}}
    parents = {"data": data, **{role: node for role, (_, node) in benchmarks.items()}}
    return builder.add(Node(label, "contamination", identity, {}, parents))


def _benchmarks(builder: Builder, evaluate: Evaluate) -> dict[str, tuple[str | None, Node]]:
    """The stages with the questions of each benchmark, by their role, with its name; None for lm_eval's tasks."""
    found: dict[str, tuple[str | None, Node]] = {
        f"questions.{name}": (name, _questions(builder, evaluate, name))
        for name in QUESTION_SETS
        if getattr(evaluate, name) is not None
    }
    documents = [node for node in builder.nodes.values() if node.kind == _LM_EVAL]
    return found | ({_LM_EVAL: (None, documents[0])} if documents else {})


def _stated_questions(builder: Builder, name: str, where: str) -> Node:
    evaluate = builder.recipe.evaluate
    if evaluate is None or getattr(evaluate, name) is None:
        raise builder.inputs.error(
            where, f"{name} is the question set of evaluate.{name}, which the recipe has not. Add it, or name a file."
        )
    return _questions(builder, evaluate, name)


def _file_questions(builder: Builder, label: str, name: str, where: str) -> Node:
    try:
        return add_questions(builder, label, QuestionSet(dataset=name), where)
    except UserError as error:  # the file stands in the list itself, and not under a key of its own
        raise UserError(str(error).replace(f"{where}.dataset", where)) from None


def _questions(builder: Builder, evaluate: Evaluate, name: str) -> Node:
    """The stage that reads a benchmark's questions, which the benchmark's own section adds alike."""
    where = f"evaluate.{name}.questions"
    return add_questions(builder, f"questions.{name}", getattr(evaluate, name).questions, where)

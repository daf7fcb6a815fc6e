"""Questions that models are asked, and their answers: what the benchmarks and `evaluate.answers` share."""

from typing import Any

from deita_train.plan.chat_templates import ChatTemplate
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.recipe.evaluation_sections import Answers, Evaluate, QuestionSet

EVERYDAY = QuestionSet(builtin="everyday", rows=8)


def add_answers(builder: Builder, evaluate: Evaluate, models: dict[str, Model], template: ChatTemplate) -> None:
    """Add the questions and each model's answers to read: `generate.<model>`."""
    answers = evaluate.answers
    assert answers is not None
    questions = add_questions(builder, "questions", answers.questions or EVERYDAY, "evaluate.answers.questions")
    for name, model in models.items():
        add_generate(builder, f"generate.{name}", evaluate, questions, model, template, answers)


def add_questions(builder: Builder, label: str, questions: QuestionSet, where: str) -> Node:
    """Add the stage that reads a set of questions; a set that another stage reads too is the same artefact."""
    source, location = builder.inputs.source(questions, default_seed=builder.recipe.seed, where=where)
    identity: dict[str, Any] = {"source": source, "references": None}
    runtime: dict[str, Any] = {"source": location, "section": where}
    if questions.references is not None:
        identity["references"], runtime["references"] = builder.inputs.file(questions.references, f"{where}.references")
    return builder.add(Node(label, "questions", identity, runtime))


def add_generate(
    builder: Builder,
    label: str,
    evaluate: Evaluate,
    questions: Node,
    model: Model,
    template: ChatTemplate,
    section: Answers,
) -> Node:
    """Add one model's answers to a set of questions, turn by turn."""
    dtype, how = builder.of_pass(evaluate, "evaluate")
    decides, rendering = builder.of_rendering(evaluate, "evaluate", template)
    identity = {
        **model.identity,
        "chat_template": template.text,
        **decides,
        **dtype,
        "max_new_tokens": section.max_new_tokens,
        "temperature": section.temperature,
        "seed": builder.recipe.seed,
    }
    runtime = {**how, **rendering, **model.location}
    return builder.add(Node(label, "generate", identity, runtime, {"questions": questions, **model.parents}))

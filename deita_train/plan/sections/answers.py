"""Questions that models are asked, and their answers: what the benchmarks and `evaluate.answers` share."""

from typing import Any, Protocol

from deita_train.evaluation.temperatures import MT_BENCH_TEMPERATURES
from deita_train.plan.chat_templates import ChatTemplate
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.plan.sections.chat_models import chat_model
from deita_train.recipe.evaluation_sections import EVERYDAY_QUESTIONS, Evaluate, QuestionSet

EVERYDAY = QuestionSet(builtin="everyday", rows=EVERYDAY_QUESTIONS)
# How labels name a model behind an endpoint.
SERVED = "served"


class Answered(Protocol):
    """A section with answers of models."""

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of an answer."""

    @property
    def temperature(self) -> float | None:
        """Of all answers; None for MT-Bench's of each question's category."""


def add_answers(builder: Builder, evaluate: Evaluate, models: dict[str, Model], template: ChatTemplate | None) -> None:
    """Add the questions and each model's answers to read: `generate.<model>`."""
    answers = evaluate.answers
    assert answers is not None
    questions = add_questions(builder, "questions", answers.questions or EVERYDAY, "evaluate.answers.questions")
    for name, model in models.items():
        add_generate(builder, f"generate.{name}", evaluate, questions, model, template, answers)


def add_questions(builder: Builder, label: str, questions: QuestionSet, where: str) -> Node:
    """Add the stage that reads a set of questions; a set that another stage reads too is the same artefact."""
    source, location = builder.inputs.source(questions, default_seed=builder.recipe.seed, where=where)
    if questions.is_drawn:
        source = {**source, "draw": {**questions.draw, "seed": builder.seed(questions.seed)}}
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
    template: ChatTemplate | None,
    section: Answered,
) -> Node:
    """Add one model's answers to a set of questions, turn by turn.

    Args:
        builder: of the recipe.
        label: of the stage.
        evaluate: the section that says how models answer.
        questions: the stage that reads them.
        model: of the recipe, or behind an endpoint (`served_model`).
        template: the chat template of a model of the recipe; None for an endpoint, which has its own.
        section: the most tokens and the temperature.
    """
    temperature: float | dict[str, float] = (
        dict(MT_BENCH_TEMPERATURES) if section.temperature is None else section.temperature
    )
    identity = {**model.identity, "max_new_tokens": section.max_new_tokens, "temperature": temperature}
    if template is None:
        return builder.add(Node(label, "generate", identity, model.location, {"questions": questions}))
    dtype, how = builder.of_pass(evaluate, "evaluate")
    # What a question holds, every template can write as it is or not at all.
    _, rendering = builder.of_rendering(evaluate, "evaluate", template)
    identity |= {
        "chat_template": template.text,
        **dtype,
        "resize": is_resized(builder, model),
        # Where nothing is drawn, no seed decides anything.
        "seed": builder.recipe.seed if temperature else None,
    }
    runtime = {**how, **rendering, **model.location}
    return builder.add(Node(label, "generate", identity, runtime, {"questions": questions, **model.parents}))


def served_model(builder: Builder, name: str) -> Model:
    """The model behind an endpoint under `llm:`, in place of one of the recipe."""
    identity, runtime = chat_model(builder, name, "evaluate.llm", "evaluate")
    return Model({}, identity, runtime)


def is_resized(builder: Builder, model: Model) -> bool:
    """Whether a model gets the tokens that its tuning adds: the one that is tuned, which has yet to be resized."""
    tuned = [builder.nodes[label] for label in ("sft", "dpo") if label in builder.nodes]
    is_tuned = model.parents.get("model") in tuned
    return bool(tuned and tuned[0].identity["resize"]) and not is_tuned

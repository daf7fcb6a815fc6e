"""Section `evaluate:`, which measures every model of the recipe on held-out conversations and pairs."""

from collections.abc import Mapping
from typing import Any

from deita_train.plan.chat_templates import ChatTemplate, made_template
from deita_train.plan.node import Node
from deita_train.plan.sections.answers import SERVED, add_answers, is_resized, served_model
from deita_train.plan.sections.builder import Builder, Model
from deita_train.plan.sections.contamination import add_contamination
from deita_train.plan.sections.judged import add_judged
from deita_train.plan.sections.lm_eval import add_lm_eval
from deita_train.recipe.evaluation_sections import Evaluate

# Answers to read, unless the recipe states a number, and the most tokens of each.
SAMPLES, SAMPLE_TOKENS = 3, 128


def add_evaluate(builder: Builder, evaluate: Evaluate) -> None:
    """Add a pass for each model and each kind of held-out data, and what the models are asked."""
    if evaluate.llm is not None:
        if any(label in builder.nodes for label in ("sft", "dpo")):
            raise builder.inputs.error(
                "evaluate.llm",
                "answers in place of a model of this recipe, which trains one; evaluate the endpoint in a recipe of "
                "its own.",
            )
        _add_asked(builder, evaluate, {SERVED: served_model(builder, evaluate.llm)}, None)
        add_contamination(builder, evaluate)
        return
    models, template = _models(builder, evaluate)
    if evaluate.heldout is not None:
        data = builder.add_pool("heldout_data", [evaluate.heldout], "evaluate.heldout")
        _add_passes(builder, "evaluate", "evaluate", data, models, template)
    if evaluate.preferences is not None:
        data = builder.add_preferences("heldout_pairs", evaluate.preferences, "evaluate.preferences")
        _add_passes(builder, "evaluate_pairs", "log_probs", data, models, template)
    chosen = _chosen(builder, evaluate, models)
    _add_asked(builder, evaluate, chosen, template)
    if evaluate.lm_eval is not None:
        add_lm_eval(builder, evaluate, chosen, template)
    add_contamination(builder, evaluate)


def _add_asked(builder: Builder, evaluate: Evaluate, models: dict[str, Model], template: ChatTemplate | None) -> None:
    """Add what models are asked."""
    if evaluate.answers is not None:
        add_answers(builder, evaluate, models, template)
    add_judged(builder, evaluate, models, template)


def _chosen(builder: Builder, evaluate: Evaluate, models: dict[str, Model]) -> dict[str, Model]:
    """The models that answer: those that the section names, or all."""
    if evaluate.models is None:
        return models
    unknown = [name for name in evaluate.models if name not in models]
    if unknown:
        there = ", ".join(models)
        raise builder.inputs.error("evaluate.models", f"{unknown[0]}: the recipe has no such model; it has {there}.")
    return {name: model for name, model in models.items() if name in evaluate.models}


def _models(builder: Builder, evaluate: Evaluate) -> tuple[dict[str, Model], ChatTemplate]:
    """The models by name, the untuned one first, and the chat template of them all."""
    tuned = [builder.nodes[label] for label in ("sft", "dpo") if label in builder.nodes]
    if evaluate.model is not None and not tuned:
        # The answers of a pair are found by position; those of a conversation, by the template's marks.
        marked = evaluate.heldout is not None
        model = builder.model(evaluate.model, evaluate.revision, "evaluate", adapters=True)
        stated = evaluate.max_length if "max_length" in evaluate.model_fields_set else None
        builder.check_limits(model, "evaluate", ("max_length", stated))
        return {"base": model}, builder.chat_template(evaluate.chat_template, "evaluate", model, marked=marked)
    for name in ("model", "revision", "chat_template"):
        if tuned and getattr(evaluate, name) is not None:
            raise builder.inputs.error(
                f"evaluate.{name}", f"would have no effect beside {tuned[0].label}:; leave it out."
            )
    if not tuned:
        raise builder.inputs.missing("evaluate", "sft: or dpo: (or evaluate.model)")
    models = {"base": _starting_model(tuned[0])}
    models |= {node.label: Model({"model": node}, {}, {}) for node in tuned}
    return models, made_template(tuned[0])


def _starting_model(training: Node) -> Model:
    """The model that a training starts from."""
    parents = {name: parent for name, parent in training.parents.items() if name == "model"}
    if parents:
        return Model(parents, {}, {})
    return Model({}, {"model": training.identity["model"]}, {"model": training.runtime["model"]})


def _add_passes(
    builder: Builder, label: str, kind: str, data: Node, models: Mapping[str, Model], template: ChatTemplate
) -> None:
    """Add a pass for each model, which also reads the one before it, to compare with."""
    evaluate = builder.recipe.evaluate
    assert evaluate is not None
    dtype, how = builder.of_pass(evaluate, "evaluate")
    decides, rendering = builder.of_rendering(evaluate, "evaluate", template)
    before: dict[str, Node] = {}
    for name, model in models.items():
        identity: dict[str, Any] = {
            "chat_template": template.text,
            **decides,
            "resize": is_resized(builder, model),
            "max_length": evaluate.max_length,
            "cut_at_context": "max_length" not in evaluate.model_fields_set,
            **dtype,
            **model.identity,
        }
        if kind == "evaluate":
            samples = SAMPLES if evaluate.samples is None else evaluate.samples
            identity |= {"samples": samples, "sample_tokens": SAMPLE_TOKENS}
        if kind == "log_probs" and name == "dpo":
            identity["beta"] = builder.nodes["dpo"].identity["trainer"]["beta"]
        parents = {"data": data, **model.parents, **before}
        before = {
            "before": builder.add(
                Node(f"{label}.{name}", kind, identity, {**how, **rendering, **model.location}, parents)
            )
        }

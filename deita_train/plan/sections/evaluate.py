"""Section `evaluate:`, which measures every model of the recipe on held-out conversations and pairs."""

from collections.abc import Mapping
from typing import Any

from deita_train.plan.chat_templates import ChatTemplate, made_template
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.plan.sections.lm_eval import add_lm_eval
from deita_train.recipe.evaluation_sections import Evaluate

# Answers to read, unless the recipe states a number, and the most tokens of each.
SAMPLES, SAMPLE_TOKENS = 3, 128


def add_evaluate(builder: Builder, evaluate: Evaluate) -> None:
    """Add a pass for each model and each kind of held-out data."""
    models, template = _models(builder, evaluate)
    if evaluate.heldout is not None:
        data = builder.add_pool("heldout_data", [evaluate.heldout], "evaluate.heldout")
        _add_passes(builder, "evaluate", "evaluate", data, models, template)
    if evaluate.preferences is not None:
        data = builder.add_preferences("heldout_pairs", evaluate.preferences, "evaluate.preferences")
        _add_passes(builder, "evaluate_pairs", "log_probs", data, models, template)
    measured = _measured(builder, evaluate, models)
    if evaluate.lm_eval is not None:
        add_lm_eval(builder, evaluate, measured, template)


def _measured(builder: Builder, evaluate: Evaluate, models: Mapping[str, Model]) -> dict[str, Model]:
    """The models that benchmarks measure: those of `models:`, by default all."""
    for name in evaluate.models or ():
        if name not in models:
            there = ", ".join(models)
            raise builder.inputs.error("evaluate.models", f"{name}: the recipe has no such model; it has {there}.")
    return {name: model for name, model in models.items() if evaluate.models is None or name in evaluate.models}


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
    tuned = [builder.nodes[label] for label in ("sft", "dpo") if label in builder.nodes]
    for name, model in models.items():
        identity: dict[str, Any] = {
            "chat_template": template.text,
            **decides,
            "resize": name == "base" and bool(tuned and tuned[0].identity["resize"]),
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

"""Section `dpo:`, direct preference optimization of SFT's model or of another one."""

from deita_train.data.answer_marks import ends_in_eos
from deita_train.data.shipped_templates import parity_pairs_template, shipped_template
from deita_train.plan.chat_templates import DEFAULT_CHAT_TEMPLATE, ChatTemplate, made_template
from deita_train.plan.identity import stated_fields
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.recipe.data_sections import PairSelection
from deita_train.recipe.model_sections import Dpo

# The value of `by` for the margin under the reference; any other is a reward of the data.
REFERENCE = "margin"


def add_dpo(builder: Builder, dpo: Dpo) -> None:
    """Add the reading of pairs, their log-probabilities before the training, and the training."""
    model, template = _policy(builder, dpo)
    pairs = builder.add_preferences("dpo_data", dpo.preferences, "dpo.preferences")
    pairs_template = _parity_template(builder, template.text) if dpo.parity else None
    tuning = builder.of_tuning(dpo, "dpo")
    max_length = tuning["trainer"]["max_length"]
    dtype, how = builder.of_pass(dpo.reference, "dpo.reference")
    decides, rendering = builder.of_rendering(dpo, "dpo", template)
    builder.check_limits(model, "dpo", ("trainer.max_length", dpo.trainer.get("max_length")), resize=dpo.resize)
    decides |= {"resize": dpo.resize, "cut_at_context": "max_length" not in dpo.trainer}
    selection = dpo.preferences.select
    if selection is not None and selection.by != REFERENCE:
        pairs = _select_pairs(builder, selection, {"data": pairs})
    parents = {"data": pairs, **model.parents}
    scored = {"chat_template": pairs_template or template.text, "max_length": max_length, **decides, **dtype}
    reference = builder.add(
        Node("reference", "log_probs", {**model.identity, **scored}, {**model.location, **how, **rendering}, parents)
    )
    if selection is not None and selection.by == REFERENCE:
        kept = _select_pairs(builder, selection, {"data": pairs, "reference": reference})
        parents = {**parents, "data": kept}
    identity = {
        **model.identity,
        **template.identity(),
        **decides,
        "max_length": max_length,
        **tuning,
        "end_of_turn": not ends_in_eos(template.text),
        "pairs_template": pairs_template,
    }
    runtime = {**model.location, **rendering, **builder.training_runtime(dpo, "dpo")}
    builder.add(Node("dpo", "dpo", identity, runtime, {**parents, "reference": reference}, stated_fields(dpo)))


def _select_pairs(builder: Builder, selection: PairSelection, parents: dict[str, Node]) -> Node:
    """Add the stage that keeps some of the pairs."""
    identity = {"by": selection.by, "order": selection.order, "budget": selection.plain_budget}
    return builder.add(Node("dpo_pairs", "select_pairs", identity, {}, parents))


def _policy(builder: Builder, dpo: Dpo) -> tuple[Model, ChatTemplate]:
    """The model that DPO starts from, and the chat template of both."""
    recipe, sft = builder.recipe, builder.nodes.get("sft")
    if dpo.model is not None:
        if sft is not None:
            raise builder.inputs.error("dpo.model", "DPO starts from the model of sft:; leave one of the two out.")
        # The answers of a pair are found by position; those of a conversation, by the template's marks.
        marked = recipe.evaluate is not None and recipe.evaluate.heldout is not None
        model = builder.trained_model(dpo.model, dpo.revision, "dpo")
        return model, builder.chat_template(dpo.chat_template, "dpo", model, marked=marked)
    if sft is None:
        raise builder.inputs.missing("dpo", "sft: (or dpo.model)")
    for name in ("chat_template", "revision"):
        if getattr(dpo, name) is not None:
            raise builder.inputs.error(f"dpo.{name}", f"would have no effect beside sft:; leave {name}: out.")
    assert recipe.sft is not None
    if recipe.sft.peft is not None and not recipe.sft.merge_adapter:
        raise builder.inputs.error(
            "sft.peft", "sft leaves an adapter, and DPO starts from a whole model. State sft.merge_adapter: true."
        )
    return Model({"model": sft}, {}, {}), made_template(sft)


def _parity_template(builder: Builder, chat_template: str) -> str:
    """How the public code writes pairs. The model itself is published with its own template."""
    if chat_template != shipped_template(DEFAULT_CHAT_TEMPLATE):
        raise builder.inputs.error(
            "dpo.parity",
            f"writes the pairs as the public code does, which is {DEFAULT_CHAT_TEMPLATE} with its roles in lower "
            f"case, and the model's template is another. Train with chat_template: {DEFAULT_CHAT_TEMPLATE}, or "
            "leave parity: out.",
        )
    return parity_pairs_template()

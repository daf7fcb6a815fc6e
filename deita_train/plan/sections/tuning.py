"""The stages from a selection to tuned models and what they are worth: sft, dpo, evaluate."""

from collections.abc import Mapping
from typing import Any

from deita_train.data.answer_marks import ends_in_eos
from deita_train.plan.inputs import parity_pairs_template, shipped_template
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import DEFAULT_CHAT_TEMPLATE, Model, Sections
from deita_train.recipe.data_sections import Preferences
from deita_train.recipe.model_sections import Dpo, Evaluate, Sft

# trl would cut at 1,024 without a word; the public code's length is 2,048.
DPO_MAX_LENGTH = 2048
DPO_BETA = 0.1  # trl's default, and the public code's value


class TuningSections(Sections):
    """Adds the trainings on selected rows and on pairs, and the evaluations."""

    def _add_sft(self, sft: Sft) -> None:
        model = self._trained_model(sft.model, sft.revision, "sft")
        parents, identity, location = model
        if sft.data is not None:
            data = self._add_pool("sft_data", [sft.data], "sft.data")
        else:
            data = self._required("select", "sft", "select: (or sft.data:)")
        chat_template = self._chat_template(sft.chat_template, "sft", model)
        config = {
            **identity,
            "chat_template": chat_template,
            **self._tuning_config(sft),
            # Later options count only where they are another than before: what was trained without them stays.
            **({"loss": "per_conversation"} if sft.is_per_conversation else {}),
            **({"parity": True} if sft.parity else {}),
            **_of_template(chat_template),
        }
        settings = {**location, **self._training_settings(sft, "sft")}
        self._add(Node("sft", "sft", config, settings, {"data": data, **parents}))

    def _add_dpo(self, dpo: Dpo) -> None:
        parents, identity, location, chat_template = self._policy(dpo)
        pairs = self._add_preferences("dpo_data", dpo.preferences, "dpo.preferences")
        tokens = {"chat_template": chat_template, "max_length": dpo.trainer.get("max_length", DPO_MAX_LENGTH)}
        parity = {"pairs_template": self._parity_template(chat_template)} if dpo.parity else {}
        scored = {**tokens, "chat_template": parity.get("pairs_template", chat_template)}
        dtype, how = self._pass(dpo.reference, "dpo.reference")
        passed = ({**identity, **scored, **dtype}, {**location, **how})
        reference = self._add(Node("reference", "log_probs", *passed, {"data": pairs, **parents}))
        config = {**identity, **tokens, **self._tuning_config(dpo), **_of_template(chat_template), **parity}
        settings = {**location, **self._training_settings(dpo, "dpo")}
        self._add(Node("dpo", "dpo", config, settings, {"data": pairs, "reference": reference, **parents}))

    def _parity_template(self, chat_template: str) -> str:
        """How the public code writes pairs. The model is published with its own template, by which it is asked."""
        if chat_template != shipped_template(DEFAULT_CHAT_TEMPLATE):
            raise self.inputs.error(
                "dpo.parity",
                f"writes the pairs as the public code does, which is {DEFAULT_CHAT_TEMPLATE} with its roles in lower "
                f"case, and the model's template is another. Train with chat_template: {DEFAULT_CHAT_TEMPLATE}, or "
                "leave parity: out.",
            )
        return parity_pairs_template()

    def _policy(self, dpo: Dpo) -> tuple[dict[str, Node], dict[str, Any], dict[str, Any], str]:
        """Parents, identity and location of the model that DPO starts from, and the one chat template of both."""
        sft = self.nodes.get("sft")
        if dpo.model is not None:
            if sft is not None:
                raise self.inputs.error("dpo.model", "DPO starts from the model of sft:; leave one of the two out.")
            # The answers of a pair are found by their place; those of a conversation, by the template's marks.
            marked = self.recipe.evaluate is not None and self.recipe.evaluate.heldout is not None
            model = self._trained_model(dpo.model, dpo.revision, "dpo")
            return *model, self._chat_template(dpo.chat_template, "dpo", model, marked=marked)
        if sft is None:
            raise self.inputs.missing("dpo", "sft: (or dpo.model)")
        for name in ("chat_template", "revision"):
            if getattr(dpo, name) is not None:
                raise self.inputs.error(f"dpo.{name}", f"would have no effect beside sft:; leave {name}: out.")
        assert self.recipe.sft is not None
        if self.recipe.sft.peft is not None and not self.recipe.sft.merge_adapter:
            raise self.inputs.error(
                "sft.peft", "sft leaves an adapter, and DPO starts from a whole model. State sft.merge_adapter: true."
            )
        return {"model": sft}, {}, {}, sft.config["chat_template"]

    def _add_preferences(self, label: str, preferences: Preferences, where: str) -> Node:
        identity, location = self.inputs.source(preferences, default_seed=self.recipe.seed, where=where)
        if preferences.sample is not None:
            seed = preferences.seed if preferences.seed is not None else self.recipe.seed
            identity = {**identity, "sample": preferences.sample, "seed": seed}
        return self._add(Node(label, "preferences", {"source": identity}, {"source": location}))

    def _add_evaluate(self, evaluate: Evaluate) -> None:
        """Every model of the recipe, the untuned one first, on the same held-out rows; each knows the one before it."""
        models, template = self._evaluated_models(evaluate)
        if evaluate.heldout is not None:
            data = self._add_pool("heldout_data", [evaluate.heldout], "evaluate.heldout")
            self._evaluate_models("evaluate", data, models, template, evaluate)
        if evaluate.preferences is not None:
            data = self._add_preferences("heldout_pairs", evaluate.preferences, "evaluate.preferences")
            self._evaluate_models("evaluate_pairs", data, models, template, evaluate)

    def _evaluated_models(self, evaluate: Evaluate) -> tuple[dict[str, Model], str]:
        """The models to evaluate, the untuned one first, and the one chat template of all."""
        tuned = [self.nodes[label] for label in ("sft", "dpo") if label in self.nodes]
        if evaluate.model is not None and not tuned:
            # The answers of a pair are found by their place; those of a conversation, by the template's marks.
            marked = evaluate.heldout is not None
            model = self._model(evaluate.model, evaluate.revision, "evaluate", adapters=True)
            return {"base": model}, self._chat_template(evaluate.chat_template, "evaluate", model, marked=marked)
        for name in ("model", "revision", "chat_template"):
            if tuned and getattr(evaluate, name) is not None:
                raise self.inputs.error(
                    f"evaluate.{name}", f"would have no effect beside {tuned[0].label}:; leave it out."
                )
        if not tuned:
            raise self.inputs.missing("evaluate", "sft: or dpo: (or evaluate.model)")
        models: dict[str, Model] = {"base": _model_of(tuned[0])}
        models |= {node.label: ({"model": node}, {}, {}) for node in tuned}
        return models, tuned[0].config["chat_template"]

    def _evaluate_models(
        self, label: str, data: Node, models: Mapping[str, Model], template: str, evaluate: Evaluate
    ) -> None:
        kind = "evaluate" if label == "evaluate" else "log_probs"
        dtype, settings = self._pass(evaluate, "evaluate")
        common = {"chat_template": template, "max_length": evaluate.max_length, **dtype}
        before: dict[str, Node] = {}
        for name, (parents, identity, location) in models.items():
            config, place = {**common, **identity}, {**settings, **location}
            if label == "evaluate_pairs" and name == "dpo":
                config["beta"] = self.nodes["dpo"].config["trainer"].get("beta", DPO_BETA)
            node = Node(f"{label}.{name}", kind, config, place, {"data": data, **parents, **before})
            before = {"before": self._add(node)}


def _of_template(chat_template: str) -> dict[str, bool]:
    """That the model must be told to stop where its template ends a turn, unless that is its own end of sequence."""
    return {} if ends_in_eos(chat_template) else {"end_of_turn": True}


def _model_of(node: Node) -> Model:
    """The model that a training starts from."""
    config, settings = ({"model": of["model"]} if "model" in of else {} for of in (node.config, node.settings))
    return {name: parent for name, parent in node.parents.items() if name == "model"}, config, settings

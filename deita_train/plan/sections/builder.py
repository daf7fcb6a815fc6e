"""What sections build their stages with: the stages so far, models, data, and what decides a training's result."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deita_train.data.places import distinct_names, source_name
from deita_train.errors import UserError
from deita_train.models.model_limits import length_problem, vocabulary_problem
from deita_train.plan.chat_templates import (
    OWN,
    ChatTemplate,
    made_template,
    named_template,
    own_or_default,
    own_template_of,
)
from deita_train.plan.identity import PERFORMANCE_FIELDS, decisive_trainer, whole_peft
from deita_train.plan.inputs import Inputs
from deita_train.plan.micro_batches import field_of_micro_batches
from deita_train.plan.model_templates import TemplateAway
from deita_train.plan.node import UNRESOLVED, Node
from deita_train.plan.training_checks import check_quantization, check_training
from deita_train.recipe.data_sections import Preferences, Source
from deita_train.recipe.model_sections import Packable, Pass, Rendered, Training, Tuning
from deita_train.recipe.schema import Recipe
from deita_train.training.mixed_precision import precision_of

# Tokens to which a pass cuts without `max_length`, where the model's context is not shorter: the public code's length.
# A context may be far longer, and a pass over it far more expensive.
PASS_MAX_LENGTH = 2048

_WAYS_OUT = "esize it once and save it (resize_token_embeddings), or name another model."


class Model(NamedTuple):
    """A model that a section names: the stage that makes it, or its identity (hashed) and location (not hashed)."""

    parents: dict[str, Node]
    identity: dict[str, Any]
    location: dict[str, Any]


class Builder:
    """A recipe, its inputs, and the stages added so far by label."""

    def __init__(self, recipe: Recipe, inputs: Inputs, *, models_are_swept: bool = False) -> None:
        self.recipe = recipe
        self._models_are_swept = models_are_swept
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> Node:
        """Add a stage; returns it."""
        if node.identity.get("resize"):
            resizing = {"section": self._resizing_section(node), "is_swept": self._models_are_swept}
            node = replace(node, runtime={**node.runtime, "resizing": resizing})
        self.nodes[node.label] = node
        return node

    def _resizing_section(self, node: Node) -> str:
        """The section whose `resize: true` a stage follows."""
        if node.kind == "train_scorer":
            return f"scorers.{node.identity['dimension']}.train"
        return "sft" if self.recipe.sft is not None and node.label not in ("reference", "dpo") else "dpo"

    def required(self, label: str, section: str, wanted: str) -> Node:
        """The stage with that label; `wanted` names the section to add where it is missing."""
        if label not in self.nodes:
            raise self.inputs.missing(section, wanted)
        return self.nodes[label]

    def pool(self, section: str) -> Node:
        """The stage whose rows are scored and selected from: the pool, cleaned where the recipe says so."""
        return self.nodes["clean_pool"] if "clean_pool" in self.nodes else self.required("pool", section, "pool:")

    def either(self, given: str, made: str, section: str, wanted: str) -> Node:
        """The stage that reads a file of the user's, or else the one that makes the same."""
        return self.nodes[given] if given in self.nodes else self.required(made, section, wanted)

    def seed(self, stated: int | None) -> int:
        """A section's seed, by default the recipe's."""
        return self.recipe.seed if stated is None else stated

    def add_pool(self, label: str, sources: Sequence[Source], where: str, *, needs_answer: bool = True) -> Node:
        """Add the stage that reads conversations, or also questions alone."""
        identities, locations = [], []
        twice = _named_twice(sources)
        if twice is not None:
            raise self.inputs.error(f"{where}.sources", f"{twice} is named twice; leave one out.")
        for number, (source, prefix) in enumerate(zip(sources, _id_prefixes(sources), strict=True)):
            path = f"{where}.sources.{number}" if len(sources) > 1 else where
            identity, location = self.inputs.source(source, default_seed=self.recipe.seed, where=path)
            if source.is_drawn:
                identity = {**identity, "draw": {**source.draw, "seed": self.seed(source.seed)}}
            if prefix is not None:
                identity = {**identity, "id_prefix": prefix}
            # Generated conversations have answers, and share an artefact with the pool.
            if not needs_answer and source.builtin is None:
                identity = {**identity, "needs_answer": False}
            identities.append(identity)
            locations.append(location)
        return self.add(Node(label, "pool", {"sources": identities}, {"sources": locations}))

    def add_preferences(self, label: str, preferences: Preferences, where: str) -> Node:
        """Add the stage that reads preference pairs."""
        identity, location = self.inputs.source(preferences, default_seed=self.recipe.seed, where=where)
        if preferences.is_drawn:
            identity = {**identity, "sample": preferences.sample, "seed": self.seed(preferences.seed)}
        return self.add(Node(label, "preferences", {"source": identity}, {"source": location}))

    def model(self, name: str, revision: str | None, where: str, *, adapters: bool = False) -> Model:
        """The model that a section names: `base`, a folder or a Hub id."""
        if name == "base":
            return Model({"model": self.required("base", where, "base: (the section says model: base)")}, {}, {})
        return self.outside_model(name, revision, where, adapters=adapters)

    def outside_model(
        self, name: str, revision: str | None, where: str, *, adapters: bool = False, field: str = "model"
    ) -> Model:
        """A folder or a Hub model; the identity says whether the recipe lets it execute its own code."""
        identity, location = self.inputs.model(name, revision, where, adapters=adapters, field=field)
        return Model({}, {"model": {**identity, "trust_remote_code": self._trusts(name)}}, {"model": location})

    def trained_model(self, name: str, revision: str | None, where: str) -> Model:
        """The model that a training starts from: never one with its own code, which no published folder holds."""
        if name != "base" and self._trusts(name):
            raise self.inputs.error(
                f"{where}.model",
                f"{name} is under trust_remote_code, and a training publishes a folder without code, which could not "
                "be loaded. Train a model that transformers knows; if it knows this one, leave it out of the list.",
            )
        return self.model(name, revision, where)

    def _trusts(self, name: str) -> bool:
        return name in (self.recipe.trust_remote_code or ())

    def chat_template(self, name: str | None, where: str, model: Model, *, marked: bool = True) -> ChatTemplate:
        """The chat template of a section.

        Args:
            name: as stated: a template of the package, a path to a .jinja file, or `tokenizer` for the model's own;
                None for the model's own where it has one, else the package's default.
            where: the dotted path of the section.
            model: the section's model.
            marked: whether a file must mark the assistant's words, as a loss needs it.
        """
        try:
            if name not in (None, OWN):
                return named_template(name, marked=marked)
            if model.parents:
                return made_template(model.parents["model"])
            find = own_or_default if name is None else own_template_of
            return find(model.identity["model"], model.location["model"])
        except TemplateAway as error:
            if self.inputs.leave_unresolved(f"the chat template of {model.location['model']}"):
                return ChatTemplate(UNRESOLVED, None, f"{UNRESOLVED}, of {model.location['model']}")
            raise self.inputs.error(f"{where}.chat_template", str(error)) from None
        except UserError as error:
            raise self.inputs.error(f"{where}.chat_template", str(error)) from None

    def of_rendering(
        self, section: Rendered, where: str, template: ChatTemplate
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What of a stage's rendering decides its result besides the template, and how it runs."""
        return {"unsupported_fields": section.unsupported_fields}, {
            "section": where,
            "max_refused_share": section.max_refused_share,
            "template": template.words,
        }

    def of_pass(self, how: Pass, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What decides the result of every forward pass, and how it runs."""
        launch = self.inputs.launch(how.launch, f"{where}.launch")
        return {"dtype": self.inputs.dtype(how.dtype, launch)}, {
            "launch": launch,
            "max_batch_tokens": how.max_batch_tokens,
        }

    def of_training(self, training: Training, where: str) -> dict[str, Any]:
        """What decides the result of every training."""
        launch = self.inputs.launch(training.launch, f"{where}.launch")
        trainer = decisive_trainer(training)
        precision = precision_of(trainer, use_cpu=launch["use_cpu"])
        check_training(training, trainer, precision, launch, where, self.inputs.error)
        return {
            "global_batch_size": training.global_batch_size,
            "seed": self.seed(training.seed),
            "trainer": trainer,
            "mixed_precision": precision,
            "micro_batches": self._micro_batches(training, trainer, launch, where),
        }

    def _micro_batches(
        self, training: Training, trainer: dict[str, Any], launch: dict[str, Any], where: str
    ) -> dict[str, int] | None:
        """How global batches are divided, where that decides the result."""
        field = field_of_micro_batches(trainer)
        if field is None:
            return None
        rows = training.trainer.get("per_device_train_batch_size")
        if rows is None:
            raise self.inputs.error(
                f"{where}.trainer.{field}",
                "is a loss over each micro-batch as a whole, so the size of a micro-batch and the number of ranks "
                "decide what is learnt. State trainer.per_device_train_batch_size; both are then part of the key.",
            )
        return {"rows": rows, "ranks": launch["num_processes"]}

    def of_tuning(self, tuning: Tuning, where: str) -> dict[str, Any]:
        """The same of a training that may be of an adapter."""
        return {
            **self.of_training(tuning, where),
            "peft": whole_peft(tuning),
            "merge_adapter": tuning.merge_adapter if tuning.peft is not None else None,
            "quantization": tuning.quantization,
            "resize": tuning.resize,
        }

    def check_limits(
        self, model: Model, where: str, length: tuple[str, int | None], *, resize: bool | None = None
    ) -> None:
        """Refuse a local model with tokens that have no embedding, and a stated length beyond its learned positions.

        Args:
            model: of the section.
            where: the dotted path of the section.
            length: the field that states a maximum length, and what it states; None for its default.
            resize: whether the section adds embeddings; None for one that does not train.
        """
        if "model" not in model.location:
            return  # made by the run
        folder = Path(model.location["model"])
        problem = vocabulary_problem(folder)
        if problem is not None and not resize:
            ways = f"State {where}.resize: true, r{_WAYS_OUT}" if resize is not None else f"R{_WAYS_OUT}"
            raise self.inputs.error(f"{where}.model", f"{problem}. {ways}")
        field, stated = length
        problem = length_problem(folder, stated)
        if problem is not None:
            raise self.inputs.error(f"{where}.{field}", f"{problem}.")

    def training_runtime(self, training: Training, where: str) -> dict[str, Any]:
        """How a training runs."""
        performance = {name: value for name, value in training.trainer.items() if name in PERFORMANCE_FIELDS}
        launch = self.inputs.launch(training.launch, f"{where}.launch")
        if isinstance(training, Tuning) and training.quantization is not None:
            check_quantization(launch, where, self.inputs.error, elsewhere=self.inputs.plans_elsewhere)
        return {
            "section": where,
            "trainer": performance,
            "launch": launch,
            "packing": isinstance(training, Packable) and training.packing,
            "checkpoint_minutes": training.checkpoint_minutes,
        }


def _named_twice(sources: Sequence[Source]) -> str | None:
    """A dataset of which two sources read the same."""
    read = [(source.dataset, source.name, source.split, tuple(source.patterns)) for source in sources]
    return next((one[0] for one in read if one[0] is not None and read.count(one) > 1), None)


def _id_prefixes(sources: Sequence[Source]) -> list[str | None]:
    """The prefix of ids of each source whose own name another one has too; None for the others."""
    read = {
        number: (source.dataset, tuple(filter(None, (source.name, source.split, "+".join(source.patterns)))))
        for number, source in enumerate(sources)
        if source.dataset is not None
    }
    names = dict(zip(read, distinct_names(list(read.values())), strict=True))
    longer = {number: name for number, name in names.items() if name != source_name(read[number][0])}
    return [longer.get(number) for number in range(len(sources))]

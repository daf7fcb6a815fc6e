"""What every section's stages are built with: the nodes so far, models and data by name, what a training hashes."""

from typing import Any

from deita_train.plan.inputs import Inputs
from deita_train.plan.node import Node
from deita_train.recipe.data_sections import Source
from deita_train.recipe.model_sections import Packable, Pass, Training, Tuning
from deita_train.recipe.schema import Recipe

# Trainer fields that change how fast or how safely a training runs, never what comes out.
PERFORMANCE_FIELDS = frozenset(
    {
        "per_device_train_batch_size", "gradient_checkpointing", "activation_checkpointing", "save_steps",
        "logging_steps", "logging_strategy", "logging_first_step", "dataloader_num_workers", "dataloader_pin_memory",
        "dataloader_prefetch_factor", "dataset_num_proc", "disable_tqdm", "log_level", "ddp_timeout",
    }
)  # fmt: skip
DIMENSIONS = ("complexity", "quality")
DEFAULT_CHAT_TEMPLATE = "vicuna_v1.1"
# trl would cut at 1,024 without a word; the paper's length is 2,048 [App. A]. The same as in stages/rows.py.
SFT_MAX_LENGTH = 2048
# Of a model that a section names: the stage that makes it, else its identity (hashed) and its location (not hashed).
Model = tuple[dict[str, Node], dict[str, Any], dict[str, Any]]


class Sections:
    """A recipe, what it brings from outside, and the stages found so far by label."""

    def __init__(self, recipe: Recipe, inputs: Inputs) -> None:
        self.recipe = recipe
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}

    def _add(self, node: Node) -> Node:
        self.nodes[node.label] = node
        return node

    def _add_pool(self, label: str, sources: list[Source], where: str) -> Node:
        seed = self.recipe.seed
        identities, locations = [], []
        for number, source in enumerate(sources):
            path = f"{where}.sources.{number}" if len(sources) > 1 else where
            identity, location = self.inputs.source(source, default_seed=seed, where=path)
            identities.append(identity)
            locations.append(location)
        return self._add(Node(label, "pool", {"sources": identities}, {"sources": locations}))

    def _required(self, label: str, section: str, wanted: str) -> Node:
        if label not in self.nodes:
            raise self.inputs.missing(section, wanted)
        return self.nodes[label]

    def _either(self, given: str, made: str, section: str, wanted: str) -> Node:
        """What the recipe brings from a file, or else the stage that makes it."""
        return self.nodes[given] if given in self.nodes else self._required(made, section, wanted)

    def _model(self, name: str, revision: str | None, where: str, *, adapters: bool = False) -> Model:
        if name == "base":
            return {"model": self._required("base", where, "base: (the section says model: base)")}, {}, {}
        return {}, *self._outside_model(name, revision, where, adapters=adapters)

    def _outside_model(
        self, name: str, revision: str | None, where: str, *, adapters: bool = False, field: str = "model"
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Identity and location of a folder or a Hub model; where its code may be executed, the identity says so."""
        identity, location = self.inputs.model(name, revision, where, adapters=adapters, field=field)
        if name in (self.recipe.trust_remote_code or ()):
            identity = {**identity, "trust_remote_code": True}
        return {"model": identity}, {"model": location}

    def _trained_model(self, name: str, revision: str | None, where: str) -> Model:
        """The model that a training starts from: never one with code of its own, which no published folder holds."""
        if name != "base" and name in (self.recipe.trust_remote_code or ()):
            raise self.inputs.error(
                f"{where}.model",
                f"{name} is under trust_remote_code, and a training publishes a folder without code, which could not "
                "be loaded. Train a model that transformers knows; if it knows this one, leave it out of the list.",
            )
        return self._model(name, revision, where)

    def _chat_template(self, name: str | None, where: str, model: Model, *, marked: bool = True) -> str:
        """The text of the template that a section names, or of the default one; `tokenizer` means that of `model`."""
        parents, identity, location = model
        own = parents["model"].config["chat_template"] if parents else (identity["model"], location["model"])
        return self.inputs.chat_template(name or DEFAULT_CHAT_TEMPLATE, where, own, marked=marked)

    def _pass(self, how: Pass, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What every pass has in its configuration, and in its settings."""
        launch = self.inputs.launch(how.launch, f"{where}.launch")
        settings = {"launch": launch, "max_batch_tokens": how.max_batch_tokens}
        return {"dtype": self.inputs.dtype(how.dtype, launch)}, settings

    def _tuning_config(self, tuning: Tuning) -> dict[str, Any]:
        """As of any training; with an adapter also its settings. Without one the keys stay what they are."""
        adapter = {"peft": tuning.peft, "merge_adapter": tuning.merge_adapter} if tuning.peft is not None else {}
        quantized = {"quantization": tuning.quantization} if tuning.quantization is not None else {}
        return {**self._training_config(tuning), **adapter, **quantized}

    def _training_config(self, training: Training) -> dict[str, Any]:
        decisive = {name: value for name, value in training.trainer.items() if name not in PERFORMANCE_FIELDS}
        seed = training.seed if training.seed is not None else self.recipe.seed
        return {"global_batch_size": training.global_batch_size, "seed": seed, "trainer": decisive}

    def _training_settings(self, training: Training, where: str) -> dict[str, Any]:
        performance = {name: value for name, value in training.trainer.items() if name in PERFORMANCE_FIELDS}
        launch = self.inputs.launch(training.launch, f"{where}.launch")
        self.inputs.check_training(training, launch, where)
        if isinstance(training, Tuning) and training.quantization is not None:
            self.inputs.check_quantization(launch, where)
        return {
            "trainer": performance,
            "launch": launch,
            "packing": isinstance(training, Packable) and training.packing,
            "checkpoint_minutes": training.checkpoint_minutes,
        }

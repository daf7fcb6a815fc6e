"""The graph of a recipe: which stages it has, what decides each one's content, and what each one reads.

A node's `config` decides the content and is hashed into its key; its `settings` say how the work is carried out (launch
file, batch tokens, paths) and are not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deita_train.errors import UserError
from deita_train.recipe.schema import (
    Dpo,
    Embedding,
    Evaluate,
    Pass,
    Preferences,
    Recipe,
    Scorer,
    ScorerTraining,
    Sft,
    Source,
    Training,
    Tuning,
)
from deita_train.run.inputs import Inputs
from deita_train.run.keys import content_key
from deita_train.selection.needs import METHOD_NEEDS

# Raised when a stage's code changes what it writes for the same configuration.
VERSIONS = {
    "pool": 1, "base": 1, "train_scorer": 1, "score": 1, "embed": 1, "select": 1, "sft": 1, "evaluate": 1,
    "preferences": 1, "log_probs": 1, "dpo": 1,
}  # fmt: skip
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
# trl would cut at 1,024 without a word; the public code's length is 2,048.
DPO_MAX_LENGTH = 2048
DPO_BETA = 0.1  # trl's default, and the public code's value


@dataclass(frozen=True)
class Node:
    """One stage of one recipe."""

    label: str
    kind: str
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    parents: Mapping[str, "Node"] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """64 hex digits; equal keys mean equal content."""
        parents = {name: node.key for name, node in self.parents.items()}
        return content_key(self.kind, VERSIONS[self.kind], self.config, parents)

    @property
    def id(self) -> str:
        """The artefact's folder name in the store."""
        return f"{self.kind}-{self.key[:12]}"

    def ancestors(self) -> Iterator["Node"]:
        """Every node that this one reads, directly or not; parents before children."""
        for parent in self.parents.values():
            yield from parent.ancestors()
            yield parent


def build_graph(recipe: Recipe, inputs: Inputs) -> dict[str, Node]:
    """The stages of one recipe by label, in the order of the run."""
    return _Builder(recipe, inputs).build()


class _Builder:
    """Walks a recipe's sections in the order of the data flow and adds a node for each stage."""

    def __init__(self, recipe: Recipe, inputs: Inputs) -> None:
        self.recipe = recipe
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}

    def build(self) -> dict[str, Node]:
        recipe = self.recipe
        if recipe.base is not None:
            self._add_base()
        if recipe.pool is not None:
            self._add_pool("pool", recipe.pool.all_sources(), "pool")
        for dimension in DIMENSIONS:
            scorer = getattr(recipe.scorers, dimension) if recipe.scorers is not None else None
            if scorer is not None:
                self._add_scorer(dimension, scorer)
        if recipe.embedding is not None:
            self._add_embed(recipe.embedding)
        if recipe.select is not None:
            self._add_select()
        if recipe.sft is not None:
            self._add_sft(recipe.sft)
        if recipe.dpo is not None:
            self._add_dpo(recipe.dpo)
        if recipe.evaluate is not None:
            self._add_evaluate(recipe.evaluate)
        return self.nodes

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

    def _add_base(self) -> None:
        assert self.recipe.base is not None
        pretrain = self.recipe.base.pretrain
        data = self._add_pool("pretraining_data", [pretrain.data], "base.pretrain.data")
        config = {
            "architecture": self.recipe.base.architecture.model_dump(),
            "chat_template": self.inputs.chat_template(DEFAULT_CHAT_TEMPLATE, "base"),
            "max_length": pretrain.max_length,
            **self._training_config(pretrain),
        }
        self._add(Node("base", "base", config, self._training_settings(pretrain, "base.pretrain"), {"data": data}))

    def _add_scorer(self, dimension: str, scorer: Scorer) -> None:
        where = f"scorers.{dimension}"
        identity: dict[str, Any] = {}
        location: dict[str, Any] = {}
        if scorer.train is not None:
            model = self._add_train_scorer(dimension, scorer.train, f"{where}.train")
            parents = {"model": model}
        else:
            assert scorer.model is not None
            parents, identity, location = self._model(scorer.model, scorer.revision, where, adapters=True)
        if scorer.train is not None and self.recipe.pool is None:
            return  # a recipe may end in the scorers that it trains
        pool = self._required("pool", where, "pool:")
        launch = self.inputs.launch(scorer.launch, f"{where}.launch")
        config = {
            **identity,
            "dimension": dimension,
            "max_length": scorer.max_length,
            "dtype": self.inputs.dtype(scorer.dtype, launch),
        }
        settings = {
            **location,
            "launch": launch,
            "max_batch_tokens": scorer.max_batch_tokens,
            "max_unscored_share": scorer.max_unscored_share,
        }
        self._add(Node(f"score.{dimension}", "score", config, settings, {"pool": pool, **parents}))

    def _add_train_scorer(self, dimension: str, train: ScorerTraining, where: str) -> Node:
        parents, identity, location = self._model(train.model, train.revision, where)
        data, data_location = self.inputs.source(train.data, default_seed=self.recipe.seed, where=f"{where}.data")
        heldout = heldout_location = None
        if train.heldout is not None:
            # A generated held-out set must not repeat the training rows: its own default seed.
            heldout, heldout_location = self.inputs.source(
                train.heldout, default_seed=self.recipe.seed + 1, where=f"{where}.heldout"
            )
        config = {
            **identity,
            "dimension": dimension,
            "data": data,
            "heldout": heldout,
            "max_length": train.max_length,
            **self._tuning_config(train),
        }
        settings = {
            **location,
            "data": data_location,
            "heldout": heldout_location,
            **self._training_settings(train, where),
        }
        return self._add(Node(f"train_scorer.{dimension}", "train_scorer", config, settings, parents))

    def _add_embed(self, embedding: Embedding) -> None:
        pool = self._required("pool", "embedding", "pool:")
        parents, identity, location = self._model(embedding.model, embedding.revision, "embedding", adapters=True)
        launch = self.inputs.launch(embedding.launch, "embedding.launch")
        config = {
            **identity,
            "chat_template": self.inputs.chat_template(embedding.chat_template, "embedding", marked=False),
            "max_length": embedding.max_length,
            "dtype": self.inputs.dtype(embedding.dtype, launch),
        }
        settings = {**location, "launch": launch, "max_batch_tokens": embedding.max_batch_tokens}
        self._add(Node("embed", "embed", config, settings, {"pool": pool, **parents}))

    def _add_select(self) -> None:
        select = self.recipe.select
        assert select is not None
        needs = METHOD_NEEDS[select.method]
        pool = self._required("pool", "select", "pool:")
        parents = {"pool": pool}
        config: dict[str, Any] = {"method": select.method, "budget": select.budget}
        if "scores" in needs:
            wanted = _wanted_dimensions(select.method, select.score)
            for dimension in wanted:
                reason = f"scorers.{dimension}: (select.method {select.method} ranks by it)"
                parents[dimension] = self._required(f"score.{dimension}", "select", reason)
            config["score"] = wanted[0] if len(wanted) == 1 else "evol"
        if "embeddings" in needs:
            parents["embed"] = self._required("embed", "select", "embedding:")
            assert self.recipe.embedding is not None
            config |= {"threshold": select.threshold, "center": self.recipe.embedding.center}
        if "seed" in needs:
            config["seed"] = select.seed if select.seed is not None else self.recipe.seed
        self._add(Node("select", "select", config, {"allow_fewer": select.allow_fewer}, parents))

    def _add_sft(self, sft: Sft) -> None:
        parents, identity, location = self._model(sft.model, sft.revision, "sft")
        if sft.data is not None:
            data = self._add_pool("sft_data", [sft.data], "sft.data")
        else:
            data = self._required("select", "sft", "select: (or sft.data:)")
        config = {
            **identity,
            "chat_template": self.inputs.chat_template(sft.chat_template, "sft"),
            **self._tuning_config(sft),
        }
        settings = {**location, **self._training_settings(sft, "sft")}
        self._add(Node("sft", "sft", config, settings, {"data": data, **parents}))

    def _add_dpo(self, dpo: Dpo) -> None:
        parents, identity, location, chat_template = self._policy(dpo)
        pairs = self._add_preferences("dpo_data", dpo.preferences, "dpo.preferences")
        tokens = {"chat_template": chat_template, "max_length": dpo.trainer.get("max_length", DPO_MAX_LENGTH)}
        reference = self._add_log_probs(
            "reference", {"data": pairs, **parents}, {**identity, **tokens}, location, dpo.reference, "dpo.reference"
        )
        config = {**identity, **tokens, **self._tuning_config(dpo)}
        settings = {**location, **self._training_settings(dpo, "dpo")}
        self._add(Node("dpo", "dpo", config, settings, {"data": pairs, "reference": reference, **parents}))

    def _policy(self, dpo: Dpo) -> tuple[dict[str, Node], dict[str, Any], dict[str, Any], str]:
        """Parents, identity and location of the model that DPO starts from, and the one chat template of both."""
        sft = self.nodes.get("sft")
        if dpo.model is not None:
            if sft is not None:
                raise self.inputs.error("dpo.model", "DPO starts from the model of sft:; leave one of the two out.")
            # The answers of a pair are found by their place; those of a conversation, by the template's marks.
            marked = self.recipe.evaluate is not None and self.recipe.evaluate.heldout is not None
            template = self.inputs.chat_template(dpo.chat_template or DEFAULT_CHAT_TEMPLATE, "dpo", marked=marked)
            return *self._model(dpo.model, dpo.revision, "dpo"), template
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

    def _add_log_probs(
        self,
        label: str,
        parents: dict[str, Node],
        config: dict[str, Any],
        location: dict[str, Any],
        how: Pass,
        where: str,
    ) -> Node:
        launch = self.inputs.launch(how.launch, f"{where}.launch")
        config = {**config, "dtype": self.inputs.dtype(how.dtype, launch)}
        settings = {**location, "launch": launch, "max_batch_tokens": how.max_batch_tokens}
        return self._add(Node(label, "log_probs", config, settings, parents))

    def _add_evaluate(self, evaluate: Evaluate) -> None:
        """Every model of the recipe, the untuned one first, on the same held-out rows; each knows the one before it."""
        tuned = [self.nodes[label] for label in ("sft", "dpo") if label in self.nodes]
        if not tuned:
            raise self.inputs.missing("evaluate", "sft: or dpo:")
        first = tuned[0]
        untuned = {name: node for name, node in first.parents.items() if name == "model"}
        models: dict[str, tuple[dict[str, Node], Node | None]] = {"base": (untuned, first)}
        models |= {node.label: ({"model": node}, None) for node in tuned}
        if evaluate.heldout is not None:
            data = self._add_pool("heldout_data", [evaluate.heldout], "evaluate.heldout")
            self._evaluate_models("evaluate", data, models, evaluate)
        if evaluate.preferences is not None:
            data = self._add_preferences("heldout_pairs", evaluate.preferences, "evaluate.preferences")
            self._evaluate_models("evaluate_pairs", data, models, evaluate)

    def _evaluate_models(
        self, label: str, data: Node, models: Mapping[str, tuple[dict[str, Node], Node | None]], evaluate: Evaluate
    ) -> None:
        kind = "evaluate" if label == "evaluate" else "log_probs"
        launch = self.inputs.launch(evaluate.launch, "evaluate.launch")
        template = next(node for _, node in models.values() if node is not None).config["chat_template"]
        common = {
            "chat_template": template,
            "max_length": evaluate.max_length,
            "dtype": self.inputs.dtype(evaluate.dtype, launch),
        }
        settings = {"launch": launch, "max_batch_tokens": evaluate.max_batch_tokens}
        before: dict[str, Node] = {}
        for name, (parents, untuned) in models.items():
            config, place = dict(common), dict(settings)
            if untuned is not None:
                config |= {key: value for key, value in untuned.config.items() if key == "model"}
                place |= {key: value for key, value in untuned.settings.items() if key == "model"}
            if label == "evaluate_pairs" and name == "dpo":
                config["beta"] = self.nodes["dpo"].config["trainer"].get("beta", DPO_BETA)
            node = Node(f"{label}.{name}", kind, config, place, {"data": data, **parents, **before})
            before = {"before": self._add(node)}

    def _required(self, label: str, section: str, wanted: str) -> Node:
        if label not in self.nodes:
            raise self.inputs.missing(section, wanted)
        return self.nodes[label]

    def _model(
        self, name: str, revision: str | None, where: str, *, adapters: bool = False
    ) -> tuple[dict[str, Node], dict[str, Any], dict[str, Any]]:
        """Parents, identity (hashed) and location (not hashed) of a model that a section names."""
        if name == "base":
            return {"model": self._required("base", where, "base: (the section says model: base)")}, {}, {}
        identity, location = self.inputs.model(name, revision, where, adapters=adapters)
        return {}, {"model": identity}, {"model": location}

    def _tuning_config(self, tuning: Tuning) -> dict[str, Any]:
        """As of any training; with an adapter also its settings. Without one the keys stay what they are."""
        adapter = {"peft": tuning.peft, "merge_adapter": tuning.merge_adapter} if tuning.peft is not None else {}
        return {**self._training_config(tuning), **adapter}

    def _training_config(self, training: Training) -> dict[str, Any]:
        decisive = {name: value for name, value in training.trainer.items() if name not in PERFORMANCE_FIELDS}
        seed = training.seed if training.seed is not None else self.recipe.seed
        return {"global_batch_size": training.global_batch_size, "seed": seed, "trainer": decisive}

    def _training_settings(self, training: Training, where: str) -> dict[str, Any]:
        performance = {name: value for name, value in training.trainer.items() if name in PERFORMANCE_FIELDS}
        launch = self.inputs.launch(training.launch, f"{where}.launch")
        self.inputs.check_batch(training, launch, where)
        return {"trainer": performance, "launch": launch}


def _wanted_dimensions(method: str, score: str) -> tuple[str, ...]:
    if method in DIMENSIONS:
        return (method,)
    return DIMENSIONS if score == "evol" or method == "evol_score" else (score,)


def stages_until(nodes: Mapping[str, Node], until: str | None) -> dict[str, Node]:
    """The stages of one kind, or with one label, and everything that they read; all stages when `until` is None."""
    if until is None:
        return dict(nodes)
    ends = [node for node in nodes.values() if until in (node.kind, node.label)]
    if not ends:
        known = ", ".join(dict.fromkeys(name for node in nodes.values() for name in (node.kind, node.label)))
        raise UserError(f"until {until}: the recipe has no such stage; it has {known}")
    kept = {node.key for end in ends for node in (end, *end.ancestors())}
    return {label: node for label, node in nodes.items() if node.key in kept}

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
    EmbeddingFile,
    Evaluate,
    Pass,
    Perplexity,
    Preferences,
    Recipe,
    ScoreFiles,
    Scorer,
    ScorerTraining,
    Select,
    Sft,
    Source,
    Training,
    Tuning,
)
from deita_train.run.inputs import Inputs
from deita_train.run.keys import content_key
from deita_train.selection.needs import needs_of

# Raised when a stage's code changes what it writes for the same configuration.
VERSIONS = {
    "pool": 2, "base": 1, "train_scorer": 2, "score": 2, "embed": 2, "select": 1, "sft": 1, "evaluate": 2,
    "preferences": 1, "log_probs": 2, "dpo": 1, "scores_file": 1, "embeddings_file": 1,
    "sentence_embed": 1, "perplexity": 1,
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
# Fields of `select:` that go into the selection's configuration as they are, where the method reads them.
SELECT_FIELDS = ("threshold", "column", "order", "clusters", "quality_weight", "label_similarity")
# Methods that read the column of their own name from the table of `perplexity:`.
MEASURED_METHODS = ("perplexity", "ifd")
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


# Of a model that a section names: the stage that makes it, else its identity (hashed) and its location (not hashed).
Model = tuple[dict[str, Node], dict[str, Any], dict[str, Any]]


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
        if recipe.scores is not None:
            self._add_score_files(recipe.scores)
        if recipe.embedding is not None:
            self._add_embed(recipe.embedding)
        if recipe.embeddings is not None:
            self._add_embedding_file(recipe.embeddings)
        if recipe.perplexity is not None:
            self._add_perplexity(recipe.perplexity)
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
            "min_digit_mass": scorer.min_digit_mass,
            "reuse_rows": scorer.reuse_rows,
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
        launch = self.inputs.launch(embedding.launch, "embedding.launch")
        kind, (parents, identity, location), choices = self._encoder(embedding)
        config = {
            **identity,
            **choices,
            "max_length": embedding.max_length,
            "dtype": self.inputs.dtype(embedding.dtype, launch),
        }
        settings = {
            **location,
            "launch": launch,
            "max_batch_tokens": embedding.max_batch_tokens,
            "reuse_rows": embedding.reuse_rows,
        }
        self._add(Node("embed", kind, config, settings, {"pool": pool, **parents}))

    def _encoder(self, embedding: Embedding) -> tuple[str, Model, dict[str, Any]]:
        """The kind of stage that embeds, its model, and what else decides its vectors; defaults leave the keys be."""
        # A later option counts only where it is another than before: what was embedded without it stays.
        choices: dict[str, Any] = {"storage": embedding.storage} if embedding.storage != "float32" else {}
        if embedding.sentence_transformer is not None:
            name, revision = embedding.sentence_transformer, embedding.revision
            identity, location = self.inputs.model(
                name, revision, "embedding", adapters=False, field="sentence_transformer"
            )
            return "sentence_embed", ({}, {"model": identity}, {"model": location}), choices
        assert embedding.model is not None
        if embedding.pooling != "last_token":
            choices["pooling"] = embedding.pooling
        template = self.inputs.chat_template(embedding.chat_template, "embedding", marked=False)
        model = self._model(embedding.model, embedding.revision, "embedding", adapters=True)
        return "embed", model, {"chat_template": template, **choices}

    def _add_perplexity(self, perplexity: Perplexity) -> None:
        pool = self._required("pool", "perplexity", "pool:")
        parents, identity, location = self._model(perplexity.model, perplexity.revision, "perplexity", adapters=True)
        launch = self.inputs.launch(perplexity.launch, "perplexity.launch")
        config = {
            **identity,
            "chat_template": self.inputs.chat_template(perplexity.chat_template, "perplexity"),
            "max_length": perplexity.max_length,
            "dtype": self.inputs.dtype(perplexity.dtype, launch),
        }
        settings = {**location, "launch": launch, "max_batch_tokens": perplexity.max_batch_tokens}
        self._add(Node("perplexity", "perplexity", config, settings, {"pool": pool, **parents}))

    def _add_score_files(self, scores: ScoreFiles) -> None:
        for dimension in DIMENSIONS:
            file = getattr(scores, dimension)
            if file is not None:
                self._refuse_beside(f"score.{dimension}", f"scores.{dimension}", f"scorers.{dimension}")
                self._add_file("scores_file", f"scores.{dimension}", file, {"dimension": dimension})

    def _add_embedding_file(self, embeddings: EmbeddingFile) -> None:
        self._refuse_beside("embed", "embeddings", "embedding")
        self._add_file("embeddings_file", "embeddings", embeddings.file, {}, where="embeddings.file")

    def _add_file(self, kind: str, label: str, file: str, config: dict[str, Any], where: str | None = None) -> None:
        """Columns made elsewhere for the rows of the pool."""
        pool = self._required("pool", label.partition(".")[0], "pool:")
        identity, location = self.inputs.file(file, where or label)
        self._add(Node(label, kind, {**config, "file": identity}, {"file": location}, {"pool": pool}))

    def _refuse_beside(self, label: str, given: str, made: str) -> None:
        if label in self.nodes:
            raise self.inputs.error(
                given, f"{made}: makes the same for every row of the pool; leave one of the two out."
            )

    def _add_select(self) -> None:
        select = self.recipe.select
        assert select is not None
        needs = needs_of(select.method, select.quality_weight)
        measured = self._measured_column(select)
        if "column" in needs and select.column is None and measured is None:
            section = " or perplexity:, which measures one" if select.method in MEASURED_METHODS else ""
            raise self.inputs.error(
                "select.column", f"method {select.method} wants column:, the column of the pool to read{section}"
            )
        parents = {"pool": self._required("pool", "select", "pool:")}
        config: dict[str, Any] = {"method": select.method, "budget": select.budget}
        config |= {name: getattr(select, name) for name in SELECT_FIELDS if name in needs}
        if measured is not None:
            config["column"] = select.method
            parents["perplexity"] = measured
        dimensions = self._ranked_by(select, needs)
        for dimension in dimensions:
            reason = f"scorers.{dimension}: or scores.{dimension}: (select.method {select.method} ranks by it)"
            parents[dimension] = self._either(f"scores.{dimension}", f"score.{dimension}", "select", reason)
        if dimensions:
            config["score"] = dimensions[0] if len(dimensions) == 1 else "evol"
        if "embeddings" in needs:
            parents["embed"] = self._either("embeddings", "embed", "select", "embedding: or embeddings:")
            embedding = self.recipe.embeddings or self.recipe.embedding
            assert embedding is not None
            config["center"] = embedding.center
        if "seed" in needs:
            config["seed"] = select.seed if select.seed is not None else self.recipe.seed
        self._add(Node("select", "select", config, {"allow_fewer": select.allow_fewer}, parents))

    def _ranked_by(self, select: Select, needs: frozenset[str]) -> tuple[str, ...]:
        """The dimensions whose scores the selection reads; a method that can do without takes them where they are."""
        wanted = wanted_dimensions(select.method, select.score)
        there = all(self.nodes.keys() & {f"scores.{name}", f"score.{name}"} for name in wanted)
        if "scores" in needs or ("scores_if_any" in needs and (there or select.score != "evol")):
            return wanted
        return ()

    def _measured_column(self, select: Select) -> Node | None:
        """The stage whose table has the column that the method reads, unless the recipe names one of the pool's own."""
        is_measured = select.method in MEASURED_METHODS and select.column is None
        return self.nodes.get("perplexity") if is_measured else None

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
            name = evaluate.chat_template or DEFAULT_CHAT_TEMPLATE
            template = self.inputs.chat_template(name, "evaluate", marked=marked)
            return {"base": self._model(evaluate.model, evaluate.revision, "evaluate", adapters=True)}, template
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
        launch = self.inputs.launch(evaluate.launch, "evaluate.launch")
        common = {
            "chat_template": template,
            "max_length": evaluate.max_length,
            "dtype": self.inputs.dtype(evaluate.dtype, launch),
        }
        settings = {"launch": launch, "max_batch_tokens": evaluate.max_batch_tokens}
        before: dict[str, Node] = {}
        for name, (parents, identity, location) in models.items():
            config, place = {**common, **identity}, {**settings, **location}
            if label == "evaluate_pairs" and name == "dpo":
                config["beta"] = self.nodes["dpo"].config["trainer"].get("beta", DPO_BETA)
            node = Node(f"{label}.{name}", kind, config, place, {"data": data, **parents, **before})
            before = {"before": self._add(node)}

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


def _model_of(node: Node) -> Model:
    """The model that a training starts from."""
    config, settings = ({"model": of["model"]} if "model" in of else {} for of in (node.config, node.settings))
    return {name: parent for name, parent in node.parents.items() if name == "model"}, config, settings


def wanted_dimensions(method: str, score: str) -> tuple[str, ...]:
    """The dimensions whose scores a method ranks by."""
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

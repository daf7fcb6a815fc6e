"""The stages from a pool to a selection: base, scorers, embedding, perplexity, files made elsewhere, select."""

from typing import Any

from deita_train.plan.inputs import shipped_template
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import DEFAULT_CHAT_TEMPLATE, DIMENSIONS, SFT_MAX_LENGTH, Model, Sections
from deita_train.recipe.model_sections import ScorerTraining
from deita_train.recipe.schema import ReadAs, Select
from deita_train.recipe.scoring_sections import Embedding, EmbeddingFile, Perplexity, ScoreFiles, Scorer
from deita_train.selection.needs import needs_of

# Fields of `select:` that go into the selection's configuration as they are, where the method reads them.
SELECT_FIELDS = ("threshold", "column", "order", "clusters", "quality_weight", "label_similarity")
# Methods that read the column of their own name from the table of `perplexity:`.
MEASURED_METHODS = ("perplexity", "ifd")


class SelectingSections(Sections):
    """Adds what a selection reads, and the selection."""

    def _add_base(self) -> None:
        assert self.recipe.base is not None
        pretrain = self.recipe.base.pretrain
        data = self._add_pool("pretraining_data", [pretrain.data], "base.pretrain.data")
        config = {
            "architecture": self.recipe.base.architecture.model_dump(),
            "chat_template": shipped_template(DEFAULT_CHAT_TEMPLATE),
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
        dtype, how = self._pass(scorer, where)
        parity = {"parity": True} if scorer.parity else {}  # without it the keys stay what they are
        config = {**identity, "dimension": dimension, "max_length": scorer.max_length, **dtype, **parity}
        settings = {
            **location,
            **how,
            "max_unscored_share": scorer.max_unscored_share,
            "min_digit_mass": scorer.min_digit_mass,
            "reuse_rows": scorer.reuse_rows,
        }
        self._add(Node(f"score.{dimension}", "score", config, settings, {"pool": pool, **parents}))

    def _add_train_scorer(self, dimension: str, train: ScorerTraining, where: str) -> Node:
        parents, identity, location = self._trained_model(train.model, train.revision, where)
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
        dtype, how = self._pass(embedding, "embedding")
        kind, (parents, identity, location), choices = self._encoder(embedding)
        config = {**identity, **choices, "max_length": embedding.max_length, **dtype}
        settings = {**location, **how, "reuse_rows": embedding.reuse_rows}
        self._add(Node("embed", kind, config, settings, {"pool": pool, **parents}))

    def _encoder(self, embedding: Embedding) -> tuple[str, Model, dict[str, Any]]:
        """The kind of stage that embeds, its model, and what else decides its vectors; defaults leave the keys be."""
        # A later option counts only where it is another than before: what was embedded without it stays.
        choices: dict[str, Any] = {"storage": embedding.storage} if embedding.storage != "float32" else {}
        if embedding.sentence_transformer is not None:
            name, revision = embedding.sentence_transformer, embedding.revision
            outside = self._outside_model(name, revision, "embedding", field="sentence_transformer")
            return "sentence_embed", ({}, *outside), choices
        assert embedding.model is not None
        if embedding.pooling != "last_token":
            choices["pooling"] = embedding.pooling
        model = self._model(embedding.model, embedding.revision, "embedding", adapters=True)
        template = self._chat_template(embedding.chat_template, "embedding", model, marked=False)
        return "embed", model, {"chat_template": template, **choices}

    def _add_perplexity(self, perplexity: Perplexity) -> None:
        pool = self._required("pool", "perplexity", "pool:")
        model = self._model(perplexity.model, perplexity.revision, "perplexity", adapters=True)
        parents, identity, location = model
        dtype, how = self._pass(perplexity, "perplexity")
        config = {
            **identity,
            "chat_template": self._chat_template(perplexity.chat_template, "perplexity", model),
            "max_length": perplexity.max_length,
            **dtype,
        }
        self._add(Node("perplexity", "perplexity", config, {**location, **how}, {"pool": pool, **parents}))

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
        assert self.recipe.select is not None
        self._add_selection("select", self.recipe.select)

    def _add_selection(self, label: str, select: Select, where: str = "select.column") -> Node:
        """A selection; `where` is the place in the recipe that a message names when its column is missing."""
        needs = needs_of(select.method, select.quality_weight)
        measured = self._measured_column(select)
        if "column" in needs and select.column is None and measured is None:
            section = " or perplexity:, which measures one" if select.method in MEASURED_METHODS else ""
            raise self.inputs.error(
                where, f"method {select.method} wants column:, the column of the pool to read{section}"
            )
        parents = {"pool": self._required("pool", "select", "pool:")}
        config: dict[str, Any] = {"method": select.method, "budget": select.plain_budget}
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
            config |= _of_turns(select)
        if "embeddings" in needs:
            parents["embed"] = self._either("embeddings", "embed", "select", "embedding: or embeddings:")
            embedding = self.recipe.embeddings or self.recipe.embedding
            assert embedding is not None
            config["center"] = embedding.center
        if "seed" in needs:
            config["seed"] = select.seed if select.seed is not None else self.recipe.seed
        if select.in_tokens or "only_trained_turns" in config:
            parents["lengths"], config["max_length"] = self._add_lengths(select, parents["pool"])
        settings: dict[str, Any] = {"allow_fewer": select.allow_fewer}
        launch = self.inputs.optional_launch(select.launch, "select.launch") if "launch" in needs else None
        if launch is not None:
            settings["launch"] = launch
        return self._add(Node(label, "select", config, settings, parents))

    def _add_lengths(self, select: Select, pool: Node) -> tuple[Node, int | None]:
        """The stage that counts the tokens of SFT, and where SFT cuts; `select.read_as` says both without `sft:`."""
        sft, read_as = self.recipe.sft, select.read_as
        if sft is not None and sft.data is not None:
            sft = None  # it trains on other rows
        if sft is not None and read_as is not None:
            raise self.inputs.error("select.read_as", "sft: says how the rows are read; leave one of the two out.")
        if sft is not None:
            model = self._model(sft.model, sft.revision, "sft")
            return self._lengths(model, sft.chat_template, "sft", pool), sft.trainer.get("max_length", SFT_MAX_LENGTH)
        if read_as is not None:
            model = self._tokenizer(read_as)
            return self._lengths(model, read_as.chat_template, "select.read_as", pool), read_as.max_length
        raise self.inputs.error(
            f"select.{'budget' if select.in_tokens else 'only_trained_turns'}",
            "counts tokens as SFT reads them, and no sft: of the recipe reads these rows. Add sft:, or select.read_as: "
            "{tokenizer: MODEL}, with chat_template: and max_length: where they are not vicuna_v1.1 and 2048.",
        )

    def _tokenizer(self, read_as: ReadAs) -> Model:
        if read_as.tokenizer == "base":
            return self._model("base", None, "select.read_as")
        name, where = read_as.tokenizer, "select.read_as"
        return {}, *self._outside_model(name, read_as.revision, where, field="tokenizer")

    def _lengths(self, model: Model, chat_template: str, where: str, pool: Node) -> Node:
        parents, identity, location = model
        config = {**identity, "chat_template": self._chat_template(chat_template, where, model)}
        return self._add(Node("lengths", "lengths", config, location, {"pool": pool, **parents}))

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


def _of_turns(select: Select) -> dict[str, Any]:
    """What becomes of the scores of several turns, where it is not the paper's sum over all of them."""
    stated = {"score_turns": select.score_turns, "only_trained_turns": select.only_trained_turns}
    return {name: value for name, value in stated.items() if value not in ("sum", False)}


def wanted_dimensions(method: str, score: str) -> tuple[str, ...]:
    """The dimensions whose scores a method ranks by."""
    if method in DIMENSIONS:
        return (method,)
    return DIMENSIONS if score == "evol" or method == "evol_score" else (score,)

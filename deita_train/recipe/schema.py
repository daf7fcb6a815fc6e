"""The recipe's sections as frozen models: every key that a recipe may hold, its type and its default.

Nothing here reads a file or touches the network. Unknown keys are refused; :mod:`deita_train.recipe.validation` turns
pydantic's errors into one line each with the recipe's file and line.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Role = Literal["user", "assistant", "system"]
ConversationFormat = Literal["sharegpt", "messages", "alpaca", "prompt_completion"]
Dtype = Literal["auto", "float32", "bfloat16"]
SelectMethod = Literal[
    "deita", "evol_score", "complexity", "quality", "random", "longest_response", "longest_instruction", "direct_score",
    "perplexity", "ifd", "instag", "mig", "k_center", "kmeans", "facility_location", "whole_pool",
]  # fmt: skip


class Section(BaseModel):
    """Base of every section: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Origin(Section):
    """What every data section has: a file, a folder or a Hub id, or rows that the project generates itself."""

    dataset: str | None = None
    revision: str | None = None
    split: str | None = None
    builtin: str | None = None
    rows: Count | None = None
    seed: int | None = None
    roles: dict[str, Role] = {}
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    def check_origin(self, *, draws: bool = False) -> None:
        """Raise ValueError unless there is one origin and nothing that would be ignored beside it.

        `draws` says that the seed of a `dataset:` counts too, because rows are drawn from it.
        """
        if (self.dataset is None) == (self.builtin is None):
            raise ValueError("state either dataset: (a file, a folder or a Hub id) or builtin:, and not both")
        if self.builtin is not None and self.rows is None:
            raise ValueError("builtin: wants rows:, the number of rows to generate")
        alien = ("rows", "seed") if self.builtin is None else ("revision", "split", "format", "roles", "label")
        ignored = [name for name in alien if name in self.model_fields_set and not (name == "seed" and draws)]
        if ignored:
            kind = "a dataset: is read whole" if self.builtin is None else "builtin: data is generated"
            raise ValueError(f"{', '.join(ignored)} would have no effect here, because {kind}; leave it out")
        share = self.instruction_share
        if share is not None and not 0 <= share[0] < share[1] <= 1:
            raise ValueError(f"instruction_share: {share} is no range; [0.0, 0.5] is the first half")


class Source(Origin):
    """Where conversations come from."""

    builtin: Literal["quickstart", "quickstart_heldout", "quickstart_pretraining"] | None = None
    format: ConversationFormat | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin()
        return self


class Pool(Origin):
    """The pool: one source, or several that are merged."""

    builtin: Literal["quickstart"] | None = None
    format: ConversationFormat | None = None
    sources: Annotated[list[Source], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        own = self._own_fields()
        if self.sources is None:
            self.check_origin()
        elif own:
            raise ValueError(f"sources: stands alone; move {', '.join(own)} into an entry of it")
        return self

    def _own_fields(self) -> list[str]:
        return sorted(name for name in self.model_fields_set if name != "sources")

    def all_sources(self) -> list[Source]:
        """The sources to merge, in the recipe's order."""
        if self.sources is not None:
            return list(self.sources)
        return [Source.model_validate({name: getattr(self, name) for name in self._own_fields()})]


class ScorerData(Origin):
    """Labelled rows for a scorer: `input`/`target`, instruction/response/score, or conversations with a label."""

    builtin: Literal["quickstart"] | None = None
    format: ConversationFormat | None = None
    label: str | None = None
    rank_within_instruction: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin()
        if self.rank_within_instruction and self.label is None:
            raise ValueError("rank_within_instruction: wants label:, the column by which answers are ranked")
        shaping = [name for name in ("format", "roles", "instruction_share") if name in self.model_fields_set]
        if self.label is None and shaping:
            raise ValueError(f"{', '.join(shaping)} would have no effect without label:; leave it out")
        return self


class Preferences(Origin):
    """Where preference pairs come from: a prompt, an answer that was chosen and one that was rejected."""

    builtin: Literal["quickstart_preferences", "quickstart_heldout_preferences"] | None = None
    format: Literal["ultrafeedback", "sharegpt_pairs", "prompt_pairs"] | None = None
    sample: Count | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin(draws=self.sample is not None)
        if self.builtin is not None and self.sample is not None:
            raise ValueError("sample would have no effect here, because builtin: data is generated; state rows:")
        return self


class Training(Section):
    """What every training has: the batch stated once, the launch file, and trl's own fields under `trainer`."""

    global_batch_size: Count
    launch: str | None = None
    seed: int | None = None
    trainer: dict[str, Any] = {}


class Tuning(Training):
    """A training that may leave the base as it is and learn an adapter: peft's own LoraConfig fields under `peft`."""

    peft: dict[str, Any] | None = None
    merge_adapter: bool = False

    @model_validator(mode="after")
    def _adapter_to_merge(self) -> Self:
        if self.merge_adapter and self.peft is None:
            raise ValueError("merge_adapter: would have no effect without peft:; leave it out")
        return self


class Pass(Section):
    """How a model passes over rows without learning; without `max_batch_tokens`, batches of what the memory holds."""

    dtype: Dtype = "auto"
    launch: str | None = None
    max_batch_tokens: Count | None = None


class Architecture(Section):
    """The shape of the miniature: a LLaMA in small, for runs without a network."""

    hidden_size: Count = 64
    num_layers: Count = 2
    num_heads: Count = 4
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    context_length: Count = 1024

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size: {self.hidden_size} is not a multiple of 2 x num_heads ({self.num_heads})")
        return self


class Pretrain(Training):
    """The miniature's brief pretraining on the text of conversations."""

    data: Source
    max_length: Count = 512


class Base(Section):
    """A base model that the run makes itself; other sections name it as `model: base`."""

    builtin: Literal["miniature"]
    architecture: Architecture = Architecture()
    pretrain: Pretrain


class ScorerTraining(Tuning):
    """Training of one scorer [paper 2.3, 2.4]: next-token prediction of one digit after the scorer's prompt."""

    data: ScorerData
    heldout: ScorerData | None = None
    model: str
    revision: str | None = None
    max_length: Count = 2048


class Scorer(Pass):
    """One scorer: a published model, or one that the run trains; and how it passes over the pool.

    Without `max_length` prompts may be as long as the model's context, and 2,048 tokens at most. Turns that this scorer
    scored in another pool of the same runs folder are not scored again, unless `reuse_rows` is false.
    """

    model: str | None = None
    revision: str | None = None
    train: ScorerTraining | None = None
    max_length: Count | None = None
    max_unscored_share: Share = 0.01
    min_digit_mass: Share = 0.1
    reuse_rows: bool = True

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.model is None) == (self.train is None):
            raise ValueError("state either model: (a published scorer) or train:, and not both")
        return self


class Scorers(Section):
    """The two scorers; one may be left out when `select` does not need it."""

    complexity: Scorer | None = None
    quality: Scorer | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.complexity is None and self.quality is None:
            raise ValueError("name at least one scorer: complexity: or quality:")
        return self


class ScoreFiles(Section):
    """Scores made elsewhere: for each dimension a table with `id` and `complexity_scores` or `quality_scores`."""

    complexity: str | None = None
    quality: str | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.complexity is None and self.quality is None:
            raise ValueError("name a file for at least one dimension: complexity: or quality:")
        return self


class Embedding(Pass):
    """The encoder whose last hidden state at the last token stands for a conversation [paper 2.5].

    `pooling: mean` takes the mean over all tokens; `sentence_transformer:` a model of that library, which pools itself.
    Without `max_length` conversations are cut to the model's context, and to 2,048 tokens at most. Conversations that
    were embedded in another pool of the same runs folder are not embedded again, unless `reuse_rows` is false.
    """

    model: str | None = None
    sentence_transformer: str | None = None
    revision: str | None = None
    chat_template: str = "vicuna_v1.1"
    max_length: Count | None = None
    pooling: Literal["last_token", "mean"] = "last_token"
    storage: Literal["float32", "float16"] = "float32"
    center: bool = False
    reuse_rows: bool = True

    @model_validator(mode="after")
    def _one_encoder(self) -> Self:
        if (self.model is None) == (self.sentence_transformer is None):
            raise ValueError("state either model: (of transformers) or sentence_transformer:, and not both")
        alien = [name for name in ("chat_template", "pooling") if name in self.model_fields_set]
        if self.sentence_transformer is not None and alien:
            raise ValueError(f"{', '.join(alien)} would have no effect beside sentence_transformer:; leave it out")
        return self


class EmbeddingFile(Section):
    """Embeddings made elsewhere: a table with `id` and `embedding`."""

    file: str
    center: bool = False


class Perplexity(Pass):
    """The model under which answers are measured: their perplexity, and IFD, its ratio to that of the answers alone.

    Without `max_length` conversations are cut to the model's context, and to 2,048 tokens at most.
    """

    model: str
    revision: str | None = None
    chat_template: str = "vicuna_v1.1"
    max_length: Count | None = None


class Select(Section):
    """Which rows are kept: a method of the literal table in `selection/methods.py`, a budget, what the method reads.

    `selection/needs.py` says which of the fields from `threshold` to `seed` a method reads; docs/selection.md explains.
    """

    method: SelectMethod = "deita"
    budget: Count | None = None
    threshold: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.9
    score: Literal["evol", "complexity", "quality"] = "evol"
    column: str | None = None
    order: Literal["highest", "lowest"] = "highest"
    clusters: Count | None = None
    quality_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    label_similarity: Annotated[float, Field(gt=0, le=1)] = 0.9
    seed: int | None = None
    allow_fewer: bool = False

    @model_validator(mode="after")
    def _budget_where_one_counts(self) -> Self:
        if (self.method == "whole_pool") == (self.budget is not None):
            wanted = "has no budget: leave it out" if self.method == "whole_pool" else "wants budget:, the rows to keep"
            raise ValueError(f"method {self.method} {wanted}")
        return self


class Sft(Tuning):
    """Supervised fine-tuning on the selected conversations, or on `data:` when there is nothing to select."""

    model: str
    revision: str | None = None
    data: Source | None = None
    chat_template: str = "vicuna_v1.1"


class Dpo(Tuning):
    """Direct preference optimization of the SFT model, or of `model:` when the recipe has no sft."""

    preferences: Preferences
    model: str | None = None
    revision: str | None = None
    chat_template: str | None = None
    reference: Pass = Pass()


class Evaluate(Pass):
    """Evaluation on held-out rows of the base and of every tuned model, or of `model:` in a recipe that tunes none.

    On conversations the loss per assistant token, on pairs how often the chosen answer is the likelier one.
    """

    heldout: Source | None = None
    preferences: Preferences | None = None
    model: str | None = None
    revision: str | None = None
    chat_template: str | None = None
    max_length: Count = 2048

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if self.heldout is None and self.preferences is None:
            raise ValueError("state heldout: (conversations), preferences: (pairs), or both")
        return self


class Wandb(Section):
    """Where runs are logged: one group per recipe, one run per stage. Never part of a key."""

    project: Annotated[str, Field(pattern=r"^[^/\\#?%:]{1,128}$")] = "deita_train"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class Recipe(Section):
    """A whole run. Sections may be absent; what is there must have what it reads."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: int = 42
    base: Base | None = None
    pool: Pool | None = None
    scorers: Scorers | None = None
    scores: ScoreFiles | None = None
    embedding: Embedding | None = None
    embeddings: EmbeddingFile | None = None
    perplexity: Perplexity | None = None
    select: Select | None = None
    sft: Sft | None = None
    dpo: Dpo | None = None
    evaluate: Evaluate | None = None
    wandb: Wandb | None = None
    sweep: dict[str, Any] | None = None

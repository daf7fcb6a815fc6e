"""The recipe's sections as frozen models: every key that a recipe may hold, its type and its default.

Nothing here reads a file or touches the network. Unknown keys are refused; :mod:`deita_train.recipe.validation` turns
pydantic's errors into one line each with the recipe's file and line.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deita_train.recipe.data_sections import Count, Pool, Preferences, Section, Source
from deita_train.recipe.model_sections import Base, Dpo, Pass, ScorerTraining, Sft
from deita_train.selection.settings import METHODS, SelectionSettings, check_budget

Share = Annotated[float, Field(ge=0, le=1)]
if TYPE_CHECKING:
    SelectMethod = str
else:
    SelectMethod = Literal[tuple(METHODS)]


class Scorer(Pass):
    """One scorer: a published model, or one that the run trains; and how it passes over the pool.

    Without `max_length` prompts may be as long as the model's context, and 2,048 tokens at most; longer ones are
    shortened. `parity` is what the public code does: no prompt is shortened. Turns that this scorer scored in another
    pool of the same runs folder are not scored again, unless `reuse_rows` is false.
    """

    model: str | None = None
    revision: str | None = None
    train: ScorerTraining | None = None
    max_length: Count | None = None
    parity: bool = False
    max_unscored_share: Share = 0.01
    min_digit_mass: Share = 0.1
    reuse_rows: bool = True

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.model is None) == (self.train is None):
            raise ValueError("state either model: (a published scorer) or train:, and not both")
        return self

    @model_validator(mode="after")
    def _nothing_to_shorten_to(self) -> Self:
        if self.parity and self.max_length is not None:
            raise ValueError(
                "max_length would have no effect beside parity: true, which shortens nothing; leave it out"
            )
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


class PartOfPool(Section):
    """A budget that is no number of rows: a share of the pool's rows, or a number of training tokens."""

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    tokens: Count | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.share is None) == (self.tokens is None):
            raise ValueError("state either share: (of the pool's rows) or tokens: (of training), and not both")
        return self


class ReadAs(Section):
    """How a later training will read the rows, for a recipe without `sft:`, which says it otherwise."""

    tokenizer: str
    revision: str | None = None
    chat_template: str = "vicuna_v1.1"
    max_length: Count = 2048


class Select(Section):
    """Which rows are kept: a method, a budget, and what the method reads.

    `selection/settings.py` says which of the fields from `threshold` to `launch` a method reads, docs/selection.md what
    they mean.
    `read_as` serves a budget of tokens and `only_trained_turns`.
    """

    method: SelectMethod = "deita"
    budget: Count | PartOfPool | None = None
    score_turns: Literal["sum", "mean"] = SelectionSettings.score_turns
    only_trained_turns: bool = False
    read_as: ReadAs | None = None
    threshold: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = SelectionSettings.threshold
    score: Literal["evol", "complexity", "quality"] = SelectionSettings.score
    column: str | None = None
    order: Literal["highest", "lowest"] = SelectionSettings.order
    clusters: Count | None = None
    quality_weight: Annotated[float, Field(ge=0, lt=1)] = SelectionSettings.quality_weight
    label_similarity: Annotated[float, Field(gt=0, le=1)] = SelectionSettings.label_similarity
    seed: int | None = None
    launch: str | None = None
    allow_fewer: bool = False

    @model_validator(mode="after")
    def _budget_where_one_counts(self) -> Self:
        check_budget(self.method, has_budget=self.budget is not None, in_tokens=self.in_tokens)
        return self

    @property
    def in_tokens(self) -> bool:
        """Whether the budget is a number of training tokens."""
        return isinstance(self.budget, PartOfPool) and self.budget.tokens is not None

    @property
    def plain_budget(self) -> int | dict[str, Any] | None:
        """The budget as plain data (`deita_train/budget.py`)."""
        return self.budget.model_dump(exclude_none=True) if isinstance(self.budget, PartOfPool) else self.budget


class Compare(Section):
    """Other methods that select from the same pool with the same budget, to be measured beside `select:`.

    They read the fields of `select:`; `columns` names the column of a method that wants another one than
    `select.column`. `max_length` is where a training would cut a row: in tokens if `token_column` names a column of the
    pool with each row's number of tokens, else in characters. Of the recipe as written alone: a sweep's cells do
    without.
    """

    methods: Annotated[list[SelectMethod], Field(min_length=1)]
    columns: dict[SelectMethod, str] = Field(default_factory=dict)
    max_length: Count | None = None
    token_column: str | None = None

    @model_validator(mode="after")
    def _methods_to_compare(self) -> Self:
        twice = next((name for name in self.methods if self.methods.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice; name each method once")
        without_budget = next((name for name in self.methods if not METHODS[name].has_budget), None)
        if without_budget is not None:
            raise ValueError(f"{without_budget} is in the tables as it is; leave it out")
        return self


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
    """A whole run. Sections may be absent; what is there must have what it reads.

    `trust_remote_code` names the models, as sections name them, whose own Python code may be executed.
    """

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
    compare: Compare | None = None
    sft: Sft | None = None
    dpo: Dpo | None = None
    evaluate: Evaluate | None = None
    wandb: Wandb | None = None
    trust_remote_code: Annotated[list[str], Field(min_length=1)] | None = None
    sweep: dict[str, Any] | None = None

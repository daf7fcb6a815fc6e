"""The recipe: every section and key that it may hold, as frozen models.

Nothing here reads a file or touches the network. Unknown keys are refused; :mod:`deita_train.recipe.validation` turns
pydantic's errors into one line each with the recipe's file and line. The text under each field is its entry in
docs/recipe.md (:mod:`deita_train.recipe.reference`).
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from deita_train.recipe.data_sections import Count, Pool, Section, Seed, Target
from deita_train.recipe.evaluation_sections import Evaluate
from deita_train.recipe.llm_sections import DirectScore, Evolve, Instag, LlmEndpoint
from deita_train.recipe.model_sections import Base, Dpo, Rendered, Sft
from deita_train.recipe.report_sections import Report
from deita_train.recipe.scoring_sections import Embedding, EmbeddingFile, Perplexity, ScoreFiles, Scorers
from deita_train.recipe.wording import WHOLE_NUMBER, wrong_value
from deita_train.selection.settings import EMBEDDING_CLUSTERS, METHODS, Order, Score, SelectionSettings, check_budget

if TYPE_CHECKING:
    SelectMethod = str
else:
    SelectMethod = Literal[tuple(METHODS)]


class PartOfPool(Section):
    """A budget other than a number of rows: a share of the pool's rows, or a number of training tokens."""

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the pool's rows, rounded down, one row at least."""
    tokens: Count | None = None
    """Training tokens: rows in rank order until the next one would exceed them."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.share is None) == (self.tokens is None):
            raise ValueError("state either share: (of the pool's rows) or tokens: (of training), and not both")
        return self


class ReadAs(Rendered):
    """How a later training will read the rows, in a recipe without `sft`."""

    tokenizer: str
    """The model whose tokenizer is used: a folder or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    max_length: Count = 2048
    """Tokens at which a conversation is cut; without it, also at the model's context."""


class Weighted(Section):
    """A score made of several numbers of each row."""

    weights: Annotated[dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]
    """For each number its weight, a factor in a sum and an exponent in a product. A name is what the recipe measures
    (`evol`, `complexity`, `quality`, `perplexity`, `ifd`, `direct_score`), else a column of the pool, also inside
    another (`raw_scores.IFD`)."""
    orders: dict[str, Order] = Field(default_factory=dict)
    """For a number of which high values are not the best: `lowest`, or `middle` for those near the median."""
    scale: Literal["z", "rank", "min_max"] = "z"
    """The common scale: mean 0 and deviation 1, the place among the rows from 0 to 1, or 0 for the lowest and 1 for the
    highest."""
    combine: Literal["sum", "product"] = "sum"
    """Whether the weighted numbers are added or multiplied."""

    @model_validator(mode="after")
    def _orders_of_weighted_numbers(self) -> Self:
        unknown = next((name for name in self.orders if name not in self.weights), None)
        if unknown is not None:
            raise ValueError(f"orders.{unknown}: would have no effect, because {unknown} has no weight; leave it out")
        if self.combine == "product" and self.scale == "z":
            raise ValueError("a product of numbers below and above 0 has no order; state scale: rank or min_max")
        return self

    @property
    def plain(self) -> dict[str, Any]:
        """As plain data, every number with its weight and order."""
        named = {
            name: {"weight": weight, "order": self.orders.get(name, "highest")} for name, weight in self.weights.items()
        }
        return {"weights": named, "scale": self.scale, "combine": self.combine}


Limits = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]


class Strata(Section):
    """Parts of the pool among which the budget is divided; the method selects within each."""

    by: str
    """A column of texts, whole numbers or yes/no values, such as `source`, or `embedding_clusters`."""
    share: Literal["equal", "proportional"] | dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = (
        "proportional"
    )
    """What each gets: the same, in proportion to its rows that can be ranked (to their tokens with a budget of tokens),
    or a weight for each by name."""
    clusters: Count | None = None
    """Number of `embedding_clusters`; by default the square root of half the rows."""
    seed: int | None = None
    """Seed of `embedding_clusters`; the recipe's `seed` by default."""

    @model_validator(mode="after")
    def _fields_of_clusters(self) -> Self:
        is_clustered = self.by == EMBEDDING_CLUSTERS
        idle = [name for name in ("clusters", "seed") if not is_clustered and getattr(self, name) is not None]
        if idle:
            raise ValueError(f"{idle[0]}: would have no effect with by: {self.by}; leave it out")
        if is_clustered and isinstance(self.share, dict):
            raise ValueError("share: clusters have no names before they are made; state equal or proportional")
        return self


class Select(Section):
    """Which rows are kept: a method, a budget, and what the method reads (docs/selection.md)."""

    method: SelectMethod = "deita"
    """How rows are chosen; `deita` walks down the evol score with the Repr Filter [paper 2.5]."""
    budget: Count | PartOfPool | None = None
    """How much to keep: a number of rows, a share or a number of tokens. Required, except by `whole_pool`."""
    score_turns: Literal["sum", "mean"] = SelectionSettings.score_turns
    """What becomes of the scores of several turns; the paper sums [paper 2.2]."""
    only_trained_turns: bool = False
    """Leaves out of the score the turns that SFT would cut off."""
    read_as: ReadAs | None = None
    """How SFT reads the rows, for a budget or a `unit` of tokens and `only_trained_turns` in a recipe without `sft`."""
    threshold: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = SelectionSettings.threshold
    """Highest cosine similarity to any kept row, of `deita` [paper 2.5]."""
    score: Literal["evol", "complexity", "quality"] | Weighted = "evol"
    """What rows are ranked by: complexity times quality (the evol score), one of the two [paper 2.2], or
    `{weights: ...}`, several numbers at once."""
    between: Limits | dict[str, Limits] | None = None
    """Leaves out rows outside two quantiles, for any method: `[0.2, 0.8]` of the column that the method reads, or
    `{NAME: [0.2, 0.8]}` of any number, named as in `score.weights`."""
    column: str | None = None
    """The pool's column that `direct_score`, `perplexity`, `ifd`, `fit`, `instag` and `mig` read."""
    order: Order = SelectionSettings.order
    """Which numbers come first, of `perplexity`, `ifd` and `direct_score`: `middle` begins at the median."""
    unit: Literal["characters", "tokens"] = SelectionSettings.unit
    """What `longest_response` counts; tokens are those that SFT trains on, uncut."""
    among: Literal["instruction", "pool"] = SelectionSettings.among
    """Whether `fit` keeps the likeliest answer to each instruction, or the likeliest rows of the pool."""
    target: Target | None = None
    """Conversations of a task, of `target`: rows near them are kept. Read as a pool is, and embedded by the encoder of
    `embedding`; or `{embeddings: FILE}` beside `embeddings`."""
    strata: Strata | None = None
    """Divides the budget among parts of the pool, for any method."""
    clusters: Count | None = None
    """Number of clusters, of `kmeans`; by default the square root of half the rows."""
    quality_weight: Annotated[float, Field(ge=0, lt=1)] = SelectionSettings.quality_weight
    """Weight of the score against coverage, of `facility_location`."""
    distance_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = SelectionSettings.distance_weight
    """Weight of the smallest distance between kept rows against their mean score, of `gist`."""
    label_similarity: Annotated[float, Field(gt=0, le=1)] = SelectionSettings.label_similarity
    """Similarity from which two tags are joined, of `mig`."""
    seed: Seed | None = None
    """Seed of `random` and `kmeans`; the recipe's `seed` by default."""
    launch: str | None = None
    """A file of accelerate_configs/ or a path, of `deita`. By default one GPU, or one process on a CPU."""
    decontaminate: Annotated[list[str], Field(min_length=1)] | None = None
    """Removes the rows that repeat a question first: of sets of `evaluate` (`mt_bench`, `alpaca_eval`, `judged`), or of
    files of prompts (docs/evaluation.md)."""
    allow_fewer: bool = False
    """Accepts a selection of less than half the budget, which is otherwise an error."""

    @field_validator("budget", mode="before")
    @classmethod
    def _form_of_budget(cls, budget: Any) -> Any:
        if isinstance(budget, str | float):
            raise ValueError(wrong_value(budget, [WHOLE_NUMBER, "{share: 0.1}", "{tokens: 5000000}"]))
        return budget

    @field_validator("decontaminate")
    @classmethod
    def _each_set_once(cls, named: list[str] | None) -> list[str] | None:
        if named is not None and len(set(named)) < len(named):
            raise ValueError(f"{', '.join(named)}: name each once")
        return named

    @field_validator("between")
    @classmethod
    def _limits_in_order(cls, between: Any) -> Any:
        for low, high in between.values() if isinstance(between, dict) else [between or (0, 1)]:
            if not low < high:
                raise ValueError(f"[{low:g}, {high:g}]: write the lower quantile first, then a higher one")
        return between

    @model_validator(mode="after")
    def _budget_where_one_counts(self) -> Self:
        check_budget(self.method, has_budget=self.budget is not None, in_tokens=self.in_tokens)
        if self.strata is not None and self.budget is None:
            raise ValueError("strata: divide a budget; state one, or leave strata out")
        return self

    @property
    def plain_score(self) -> Score | dict[str, Any]:
        """The score as plain data (`deita_train/selection/settings.py`)."""
        return self.score.plain if isinstance(self.score, Weighted) else self.score

    @property
    def in_tokens(self) -> bool:
        """Whether the budget is a number of training tokens."""
        return isinstance(self.budget, PartOfPool) and self.budget.tokens is not None

    @property
    def plain_budget(self) -> int | dict[str, Any] | None:
        """The budget as plain data (`deita_train/budget.py`)."""
        return self.budget.model_dump(exclude_none=True) if isinstance(self.budget, PartOfPool) else self.budget


class Compare(Section):
    """Other methods that select from the same pool with the same budget, to be measured beside `select`.

    They read the fields of `select`. Only the base run compares; the cells of a sweep do not.
    """

    methods: Annotated[list[SelectMethod], Field(min_length=1)]
    """The methods to compare with."""
    columns: dict[SelectMethod, str] = Field(default_factory=dict)
    """Columns of methods that need another one than `select.column`."""
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """Seeds with which each method that draws selects, for intervals; by default the one of `select`."""
    match: Literal["rows", "tokens"] = "rows"
    """What the methods have in common: the budget in rows, or as many training tokens as the selection of `select`."""
    count_tokens: bool = False
    """States the training tokens of each selection, as `sft` or `select.read_as` read the rows; `match: tokens` does so
    too."""
    mean_of: list[str] = Field(default_factory=list)
    """Columns of the pool whose means over each selection are compared too, such as a rating that no method reads."""
    max_length: Count | None = None
    """Length at which a training would cut a row, for the share of text that it never sees; not measured by default."""
    token_column: str | None = None
    """The pool's column with each row's number of tokens, the unit of `max_length`; by default it is characters."""

    @property
    def counts_tokens(self) -> bool:
        """Whether training tokens are counted."""
        return self.count_tokens or self.match == "tokens"

    @model_validator(mode="after")
    def _methods_to_compare(self) -> Self:
        twice = next((name for name in self.methods if self.methods.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice; name each method once")
        without_budget = next((name for name in self.methods if not METHODS[name].has_budget), None)
        if without_budget is not None:
            raise ValueError(f"{without_budget} is in the tables as it is; leave it out")
        if self.token_column is not None and self.counts_tokens:
            raise ValueError("token_column: tokens are counted as SFT reads the rows; leave one of the two out")
        if len(set(self.mean_of)) < len(self.mean_of):
            raise ValueError(f"mean_of: {', '.join(self.mean_of)} names one twice; name each column once")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} names one twice; name each seed once")
        return self


class Wandb(Section):
    """Logging to wandb: one group per recipe, one run per stage. Never part of an artefact's key."""

    project: Annotated[str, Field(pattern=r"^[^/\\#?%:]{1,128}$")] = "deita_train"
    """The project of all runs."""
    entity: str | None = None
    """User or team; the account's own by default."""
    mode: Literal["online", "offline"] = "online"
    """Sends each run, or keeps it in a folder for `wandb sync`."""


class Recipe(Section):
    """A whole run. Any section may be absent; what is there must have what it reads."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run's folder, runs/NAME; no part of any artefact's key."""
    description: str = ""
    """What the recipe is for; shown in the report."""
    seed: Seed = 42
    """Default of every section's seed."""
    base: Base | None = None
    """A base model that the run makes itself."""
    llm: dict[str, LlmEndpoint] | None = None
    """Chat models by a name of yours, for `evolve`, `direct_score` and `instag` (docs/evolve.md)."""
    evolve: Evolve | None = None
    """Labels for the scorers, made by a chat model [paper 2.3, 2.4]."""
    pool: Pool | None = None
    """The conversations to select from."""
    direct_score: DirectScore | None = None
    """Ratings of the pool's rows by a chat model."""
    instag: Instag | None = None
    """Tags of the pool's rows by a chat model."""
    scorers: Scorers | None = None
    """Models that score complexity and quality [paper 2.3, 2.4]."""
    scores: ScoreFiles | None = None
    """Scores made elsewhere, in place of `scorers`."""
    embedding: Embedding | None = None
    """The encoder whose vectors show which rows are similar [paper 2.5]."""
    embeddings: EmbeddingFile | None = None
    """Embeddings made elsewhere, in place of `embedding`."""
    perplexity: Perplexity | None = None
    """The model that measures perplexity and IFD."""
    select: Select | None = None
    """Which rows are kept [paper 2.2, 2.5]."""
    compare: Compare | None = None
    """Methods to measure beside `select`."""
    sft: Sft | None = None
    """Supervised fine-tuning."""
    dpo: Dpo | None = None
    """Preference optimization."""
    evaluate: Evaluate | None = None
    """Evaluation on held-out rows."""
    report: Report | None = None
    """Published figures beside the run's own."""
    wandb: Wandb | None = None
    """Logging to wandb; by default nothing is sent."""
    report_to: Annotated[list[Literal["trackio", "tensorboard", "none"]], Field(min_length=1)] | None = None
    """Logging of model stages and selections to trackio and TensorBoard, optional extras; `[none]` is the default."""
    trust_remote_code: Annotated[list[str], Field(min_length=1)] | None = None
    """Models, as the sections name them, whose own Python code may be executed (docs/remote_code.md)."""
    sweep: dict[str, Any] | None = None
    """Dotted paths and the values to try, every combination a cell; also `until` and `whole_pool` (docs/sweeps.md)."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _own_section(cls, named: Any) -> Any:
        if isinstance(named, list) and "wandb" in named:
            raise ValueError("wandb has a section of its own: state wandb: {} and leave it out here")
        return named

    @field_validator("report_to")
    @classmethod
    def _each_once(cls, named: list[str] | None) -> list[str] | None:
        if named is not None and len(set(named)) < len(named):
            raise ValueError(f"{', '.join(named)}: name each once")
        if named is not None and "none" in named and len(named) > 1:
            raise ValueError(f"{', '.join(named)}: none stands alone")
        return named

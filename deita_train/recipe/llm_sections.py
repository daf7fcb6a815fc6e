"""The sections that ask a chat model: its endpoint, and the labels that are made with it."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from deita_train.llm.addresses import address_problem, variable_problem
from deita_train.recipe.data_sections import Count, Section, Seed, Share, Source

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2)]
ComplexityOperation = Literal["add_constraints", "deepen", "concretize", "increase_reasoning"]
QualityOperation = Literal["helpfulness", "relevance", "depth", "creativity", "detail"]


class Price(Section):
    """What tokens cost, in the currency of `max_cost`."""

    input: NotNegative
    """Price of a million tokens of prompts."""
    output: NotNegative
    """Price of a million tokens of answers."""


class LlmEndpoint(Section):
    """A chat model: behind a server that speaks the OpenAI protocol, or in a folder. One of `base_url`, `local` and
    `builtin` is required."""

    model: str | None = None
    """Name of the model as the server knows it; required with `base_url`."""
    base_url: str | None = None
    """Address of the server, such as `http://localhost:8000/v1`."""
    api_key_env: str | None = None
    """Environment variable with the key. The key itself is never written anywhere."""
    local: str | None = None
    """A model's folder or Hub id, answered on this machine by batched generation."""
    builtin: Literal["quickstart"] | None = None
    """`quickstart`: no model but rules that know the truth about the quickstart's generated tasks, and nothing else."""
    max_in_flight: Count = 32
    """Most requests at once."""
    requests_per_minute: Count | None = None
    """Most requests in a minute."""
    tokens_per_minute: Count | None = None
    """Most tokens in a minute, of prompts and answers."""
    price: Price | None = None
    """What tokens cost; needed by `max_cost`, and for the cost in the report."""
    max_cost: Positive | None = None
    """A stage stops before it spends more than this, keeps all answers, and says how to go on."""
    max_tokens_total: Count | None = None
    """The same in tokens."""
    deadline_seconds: Positive = 600.0
    """Longest wait for one answer, retries not counted."""
    max_attempts: Count = 6
    """How often a request is sent before it counts as failed."""

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        problem = None if url is None else address_problem(url)
        if problem is not None:
            raise ValueError(problem)
        return url

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        problem = None if name is None else variable_problem(name)
        if problem is not None:
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.base_url, self.local, self.builtin].count(None) != 2:
            raise ValueError(
                "state one of base_url: (a server), local: (a model's folder) and builtin: (rules of this package)"
            )
        beside = sorted(self.model_fields_set - {"builtin"})
        if self.builtin is not None and beside:
            raise ValueError(f"{', '.join(beside)} would have no effect beside builtin:; leave it out")
        if self.base_url is not None and self.model is None:
            raise ValueError("base_url: needs model:, the name by which the server knows the model")
        of_servers = (
            "model", "api_key_env", "requests_per_minute", "tokens_per_minute", "price", "max_cost", "max_tokens_total"
        )  # fmt: skip
        ignored = [name for name in of_servers if self.local is not None and name in self.model_fields_set]
        if ignored:
            raise ValueError(f"{', '.join(ignored)} would have no effect beside local:; leave it out")
        if self.max_cost is not None and self.price is None:
            raise ValueError("max_cost: needs price:, what a million tokens cost")
        return self


class Evolution(Section):
    """How the versions of a seed are made and ranked [paper 2.3, 2.4]."""

    evolutions: Count = 5
    """Versions that are made of each seed, one after another."""
    prompts: str | None = None
    """A folder with templates in place of the package's, one `.jinja` file for each operation, and `rank.jinja`."""
    temperature: Temperature = 0.7
    """Of the evolution; the ranking is always asked at 0."""
    max_tokens: Count = 1024
    """Most tokens of an evolved text."""
    max_chars: Count = 6000
    """An evolved text with more characters is dropped."""
    orders: Annotated[int, Field(ge=1, le=6)] = 1
    """In how many orders the versions of a seed are ranked together; the scores are averaged."""
    ask_again: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a ranking that cannot be read is asked again."""


class ComplexityEvolution(Evolution):
    """Instructions evolved into harder ones, and ranked [paper 2.3]."""

    operations: Annotated[list[ComplexityOperation], Field(min_length=1)] = Field(
        default_factory=lambda: list(get_args(ComplexityOperation))
    )
    """What a step may do to an instruction; which one is drawn from the seed's id."""


class QualityEvolution(Evolution):
    """Answers evolved into better ones, and ranked [paper 2.4]."""

    operations: Annotated[list[QualityOperation], Field(min_length=1)] = Field(
        default_factory=lambda: list(get_args(QualityOperation))
    )
    """What a step may do to an answer; which one is drawn from the seed's id."""


class Evolve(Section):
    """Labels for scorers, made by a chat model from seeds: Evol Complexity and Evol Quality [paper 2.3, 2.4]."""

    seeds: Source
    """Conversations whose first exchange is a seed; `rows:` draws some of them. Only `quality` needs answers."""
    llm: str
    """The endpoint under `llm:` that evolves and ranks."""
    complexity: ComplexityEvolution | None = None
    """Makes the labels that `scorers.complexity.train.data: evolve` reads."""
    quality: QualityEvolution | None = None
    """Makes the labels that `scorers.quality.train.data: evolve` reads."""
    heldout_share: Share = 0.05
    """Share of the ranked seeds whose versions are kept from training, to measure the scorer with; above 0, one seed of
    several at least."""
    seed: Seed | None = None
    """Seed of the operations, the orders and the held-out seeds; the recipe's `seed` by default."""

    @model_validator(mode="after")
    def _something_to_evolve(self) -> Self:
        if self.complexity is None and self.quality is None:
            raise ValueError("state complexity: {}, quality: {} or both")
        return self


class DirectScore(Section):
    """Each row of the pool rated by a chat model alone, from 1 to 6: the paper's baseline, for `direct_score`."""

    llm: str
    """The endpoint under `llm:`."""
    dimension: Literal["complexity", "quality"] = "quality"
    """What is rated: the instruction, or the answer to it."""
    prompts: str | None = None
    """A folder with `direct_score.jinja` in place of the package's."""
    ask_again: Annotated[int, Field(ge=0, le=10)] = 2
    """How often an answer that cannot be read is asked again."""


class Instag(Section):
    """Open tags of each row's instructions by a chat model, for `instag` and `mig`."""

    llm: str
    """The endpoint under `llm:`."""
    prompts: str | None = None
    """A folder with `tags.jinja` in place of the package's."""
    min_count: Count = 2
    """Tags of fewer rows are dropped."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Tags of at least this similarity, from edit distance, become one."""
    ask_again: Annotated[int, Field(ge=0, le=10)] = 2
    """How often an answer that cannot be read is asked again."""

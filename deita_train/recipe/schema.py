"""The recipe's sections as frozen models: every key that a recipe may hold, its type and its default.

Nothing here reads a file or touches the network. Unknown keys are refused; :mod:`deita_train.recipe.validation` turns
pydantic's errors into one line each with the recipe's file and line.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Role = Literal["user", "assistant", "system"]
Dtype = Literal["auto", "float32", "bfloat16"]
SelectMethod = Literal["deita", "evol_score", "complexity", "quality", "random", "longest_response"]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Section):
    """Where conversations come from: a file, a folder, a Hub id, or rows that the project generates itself."""

    dataset: str | None = None
    revision: str | None = None
    split: str | None = None
    builtin: Literal["quickstart", "quickstart_heldout", "quickstart_pretraining"] | None = None
    rows: Count | None = None
    seed: int | None = None
    format: Literal["sharegpt", "messages", "alpaca", "prompt_completion"] | None = None
    roles: dict[str, Role] = {}
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.dataset is None) == (self.builtin is None):
            raise ValueError("state either dataset: (a file, a folder or a Hub id) or builtin:, and not both")
        if self.builtin is not None and self.rows is None:
            raise ValueError("builtin: wants rows:, the number of conversations to generate")
        if self.builtin is None and (self.rows is not None or self.seed is not None):
            raise ValueError("rows: and seed: belong to builtin: data; a dataset is read whole")
        _check_share(self.instruction_share)
        return self


class Pool(Section):
    """The pool: one source, or several that are merged."""

    dataset: str | None = None
    revision: str | None = None
    split: str | None = None
    builtin: Literal["quickstart"] | None = None
    rows: Count | None = None
    seed: int | None = None
    format: Literal["sharegpt", "messages", "alpaca", "prompt_completion"] | None = None
    roles: dict[str, Role] = {}
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    sources: Annotated[list[Source], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        own = {name for name in self.model_fields_set if name != "sources"}
        if self.sources is not None and own:
            raise ValueError(f"sources: stands alone; move {', '.join(sorted(own))} into an entry of it")
        if self.sources is None:
            Source.model_validate({name: getattr(self, name) for name in own})
        return self

    def all_sources(self) -> list[Source]:
        """The sources to merge, in the recipe's order."""
        if self.sources is not None:
            return list(self.sources)
        return [Source.model_validate({name: getattr(self, name) for name in self.model_fields_set})]


class ScorerData(Section):
    """Labelled rows for a scorer: `input`/`target`, instruction/response/score, or conversations with a label."""

    dataset: str | None = None
    revision: str | None = None
    split: str | None = None
    builtin: Literal["quickstart"] | None = None
    rows: Count | None = None
    seed: int | None = None
    format: Literal["sharegpt", "messages", "alpaca", "prompt_completion"] | None = None
    roles: dict[str, Role] = {}
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    label: str | None = None
    rank_within_instruction: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.dataset is None) == (self.builtin is None):
            raise ValueError("state either dataset: (a file, a folder or a Hub id) or builtin:, and not both")
        if self.builtin is not None and self.rows is None:
            raise ValueError("builtin: wants rows:, the number of labelled rows to generate")
        if self.builtin is None and (self.rows is not None or self.seed is not None):
            raise ValueError("rows: and seed: belong to builtin: data; a dataset is read whole")
        if self.rank_within_instruction and self.label is None:
            raise ValueError("rank_within_instruction: wants label:, the column by which answers are ranked")
        _check_share(self.instruction_share)
        return self


class Training(Section):
    """What every training has: the batch stated once, the launch file, and trl's own fields under `trainer`."""

    global_batch_size: Count
    launch: str | None = None
    seed: int | None = None
    trainer: dict[str, Any] = {}


class Architecture(Section):
    """The shape of the miniature: a LLaMA in small, for runs without a network."""

    hidden_size: Count = 64
    num_layers: Count = 2
    num_heads: Count = 4
    vocab_size: Annotated[int, Field(ge=300)] = 2000
    context_length: Count = 1024


class Pretrain(Training):
    """The miniature's brief pretraining on the text of conversations."""

    data: Source
    max_length: Count = 512


class Base(Section):
    """A base model that the run makes itself; other sections name it as `model: base`."""

    builtin: Literal["miniature"]
    architecture: Architecture = Architecture()
    pretrain: Pretrain


class ScorerTraining(Training):
    """Training of one scorer [paper 2.3, 2.4]: next-token prediction of one digit after the scorer's prompt."""

    data: ScorerData
    heldout: ScorerData | None = None
    model: str
    revision: str | None = None
    max_length: Count = 2048


class Scorer(Section):
    """One scorer: a published model, or one that the run trains; and how it passes over the pool."""

    model: str | None = None
    revision: str | None = None
    train: ScorerTraining | None = None
    max_length: Count = 2048
    dtype: Dtype = "auto"
    launch: str | None = None
    max_batch_tokens: Count = 16384
    max_unscored_share: Share = 0.01

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


class Embedding(Section):
    """The encoder whose last hidden state at the last token stands for a conversation [paper 2.5]."""

    model: str
    revision: str | None = None
    chat_template: str = "vicuna_v1.1"
    max_length: Count = 2048
    dtype: Dtype = "auto"
    launch: str | None = None
    max_batch_tokens: Count = 16384
    center: bool = False


class Select(Section):
    """Which rows are kept: a method of the literal table in `selection/methods.py`, a budget, a threshold."""

    method: SelectMethod = "deita"
    budget: Count
    threshold: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.9
    score: Literal["evol", "complexity", "quality"] = "evol"
    seed: int | None = None
    allow_fewer: bool = False


class Sft(Training):
    """Supervised fine-tuning on the selected conversations, or on `data:` when there is nothing to select."""

    model: str
    revision: str | None = None
    data: Source | None = None
    chat_template: str = "vicuna_v1.1"


class Evaluate(Section):
    """Evaluation of the tuned model: loss per assistant token on held-out conversations."""

    heldout: Source
    max_length: Count = 2048
    dtype: Dtype = "auto"
    launch: str | None = None
    max_batch_tokens: Count = 16384


class Recipe(Section):
    """A whole run. Sections may be absent; what is there must have what it reads."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: int = 42
    base: Base | None = None
    pool: Pool | None = None
    scorers: Scorers | None = None
    embedding: Embedding | None = None
    select: Select | None = None
    sft: Sft | None = None
    evaluate: Evaluate | None = None
    sweep: dict[str, Any] | None = None


def _check_share(share: list[float] | None) -> None:
    if share is not None and not 0 <= share[0] < share[1] <= 1:
        raise ValueError(f"instruction_share: {share} is no range; [0.0, 0.5] is the first half of the instructions")

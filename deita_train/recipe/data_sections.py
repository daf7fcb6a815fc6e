"""The sections of a recipe that name data: where rows come from, and what they are."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]
Role = Literal["user", "assistant", "system"]
ConversationFormat = Literal["sharegpt", "messages", "alpaca", "prompt_completion"]


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

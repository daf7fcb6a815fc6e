"""The sections of a recipe that name data: where rows come from, and what they hold.

The text under each field is its entry in docs/recipe.md (`reference.py`).
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Role = Literal["user", "assistant", "system", "tool"]
ConversationFormat = Literal[
    "sharegpt",
    "messages",
    "alpaca",
    "prompt_completion",
    "instruction_response",
    "question_answer",
    "query_response",
]
PairFormat = Literal[
    "ultrafeedback", "sharegpt_pairs", "prompt_pairs", "question_pairs", "instruction_pairs", "transcript_pairs"
]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Origin(Section):
    """Where rows come from: a dataset, or a generator of this package. One of `dataset` and `builtin` is required."""

    dataset: str | None = None
    """A file (`.json`, `.jsonl`, also `.gz` or `.zst`, `.parquet`), a `save_to_disk` folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset. Without it, the commit of the first start is kept for the run."""
    split: str | None = None
    """Split of a Hub dataset or saved `DatasetDict`; required where there are several."""
    builtin: str | None = None
    """Generated rows, for runs without a network."""
    rows: Count | None = None
    """Number of rows to generate; required with `builtin`."""
    seed: int | None = None
    """Seed of the generated rows; the recipe's `seed` by default."""
    roles: dict[str, Role] = {}
    """Speakers of the dataset beyond the usual names, such as `{bot: assistant}`."""
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Reads only the rows whose first user message hashes into this part of 0 to 1: `[0.0, 0.5]` is one half."""

    def check_origin(self, *, draws: bool = False) -> None:
        """Check that there is one origin and no field that it would ignore.

        Args:
            draws: Whether rows are drawn from a dataset, so that its seed counts too.

        Raises:
            ValueError: There is none or more than one origin, or a field would have no effect.
        """
        if (self.dataset is None) == (self.builtin is None):
            raise ValueError("state either dataset: (a file, a folder or a Hub id) or builtin:, and not both")
        if self.builtin is not None and self.rows is None:
            raise ValueError("builtin: needs rows:, the number of rows to generate")
        unused = ("rows", "seed") if self.builtin is None else ("revision", "split", "format", "roles", "label")
        ignored = [name for name in unused if name in self.model_fields_set and not (name == "seed" and draws)]
        if ignored:
            kind = "a dataset: is read whole" if self.builtin is None else "builtin: data is generated"
            raise ValueError(f"{', '.join(ignored)} would have no effect here, because {kind}; leave it out")
        share = self.instruction_share
        if share is not None and not 0 <= share[0] < share[1] <= 1:
            raise ValueError(f"instruction_share: {share} is not a range; [0.0, 0.5] is the first half")


class Source(Origin):
    """Conversations from one place."""

    builtin: Literal["quickstart", "quickstart_heldout", "quickstart_pretraining"] | None = None
    """Generated conversations: a pool, held-out ones without flaws, or text of mixed quality for a pretraining."""
    format: ConversationFormat | None = None
    """Format of the dataset's rows; by default recognised by its columns."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin()
        return self


class Pool(Origin):
    """The conversations to select from: one source, or several that are merged."""

    builtin: Literal["quickstart"] | None = None
    """Generated conversations whose complexity, quality and near-duplicates are known."""
    format: ConversationFormat | None = None
    """Format of the dataset's rows; by default recognised by its columns."""
    sources: Annotated[list[Source], Field(min_length=1)] | None = None
    """Several sources, merged in this order; in place of all other fields."""

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
    """Labelled rows for a scorer: `input`/`target`, `instruction`/`response`/`score`, or conversations with a label."""

    builtin: Literal["quickstart"] | None = None
    """Generated rows whose true complexity and quality are known."""
    format: ConversationFormat | None = None
    """Format of the dataset's conversations; by default recognised by its columns."""
    label: str | None = None
    """Column of a conversation's label; without it, rows are `input`/`target` or `instruction`/`response`/`score`."""
    rank_within_instruction: bool = False
    """Labels an answer from 1 to 6 by the rank of its `label` among the answers to the same instruction."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin()
        if self.rank_within_instruction and self.label is None:
            raise ValueError("rank_within_instruction: needs label:, the column by which answers are ranked")
        shaping = [name for name in ("format", "roles", "instruction_share") if name in self.model_fields_set]
        if self.label is None and shaping:
            raise ValueError(f"{', '.join(shaping)} would have no effect without label:; leave it out")
        return self


class Preferences(Origin):
    """Preference pairs: a prompt, the chosen answer and the rejected one."""

    builtin: Literal["quickstart_preferences", "quickstart_heldout_preferences"] | None = None
    """Generated pairs: to train on, or held out."""
    format: PairFormat | None = None
    """Format of the dataset's rows; by default recognised by its columns."""
    seed: int | None = None
    """Seed of the generated rows, or of the sample; the recipe's `seed` by default."""
    sample: Count | None = None
    """Number of pairs to draw from the dataset; all of them by default."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_origin(draws=self.sample is not None)
        if self.builtin is not None and self.sample is not None:
            raise ValueError("sample would have no effect here, because builtin: data is generated; state rows:")
        return self

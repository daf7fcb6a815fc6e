"""The sections of a recipe that name data: where rows come from, and what they hold.

The text under each field is its entry in docs/recipe.md (`reference.py`).
"""

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deita_train.data.formats import ConversationFormat, PairFormat

Count = Annotated[int, Field(gt=0)]
# What every generator of random numbers takes: those of Python, NumPy and torch.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Role = Literal["user", "assistant", "system", "tool"]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Origin(Section):
    """Where rows come from: a dataset, or a generator of this package. One of `dataset` and `builtin` is required."""

    dataset: str | None = None
    """A data file, a folder or a pattern of data files, a `save_to_disk` folder, a URL, or a Hub id (docs/data.md)."""
    name: str | None = None
    """Configuration of a Hub dataset; required where there are several and none is its default."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset. Without it, the commit of the first start is kept for the run."""
    split: str | None = None
    """Split of a Hub dataset, of a saved `DatasetDict`, or of files named by it; required where there are several."""
    data_files: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Which files of a folder or a Hub dataset to read: a pattern, such as `data/*.parquet`, or a list of patterns."""
    streaming: bool = False
    """Reads the first `sample` rows of a Hub dataset or a URL, and downloads no more than they need."""
    sample: Count | None = None
    """Number of rows to read of a stream, from the first; required with `streaming`."""
    builtin: str | None = None
    """Generated rows, for runs without a network."""
    rows: Count | None = None
    """Number of rows to generate; required with `builtin`."""
    seed: Seed | None = None
    """Seed of the generated rows; the recipe's `seed` by default."""
    roles: dict[str, Role] = {}
    """Speakers of the dataset beyond the usual names, such as `{bot: assistant}`."""
    instruction_share: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Reads only the rows whose first user message hashes into this part of 0 to 1: `[0.0, 0.5]` is one half."""

    @property
    def is_drawn(self) -> bool:
        """Whether only some of the usable rows are taken, drawn by a seed."""
        return False

    @property
    def patterns(self) -> list[str]:
        """`data_files` as a list."""
        return [self.data_files] if isinstance(self.data_files, str) else list(self.data_files or ())

    def check_origin(self, *, of_dataset: Collection[str] = ()) -> None:
        """Check that there is one origin and no field that it would ignore.

        Args:
            of_dataset: the fields, of those that a dataset has no use for in general, that this section's dataset uses.

        Raises:
            ValueError: There is none or more than one origin, or a field would have no effect.
        """
        if (self.dataset is None) == (self.builtin is None):
            raise ValueError("state either dataset: (a file, a folder or a Hub id) or builtin:, and not both")
        if self.builtin is not None and self.rows is None:
            raise ValueError("builtin: needs rows:, the number of rows to generate")
        unused = _NOT_OF_DATASETS.difference(of_dataset) if self.builtin is None else _NOT_GENERATED
        ignored = sorted(self.model_fields_set & unused - ({"seed"} if self.is_drawn else set()))
        if ignored:
            kind = "a dataset: is read whole" if self.builtin is None else "builtin: data is generated"
            raise ValueError(f"{', '.join(ignored)} would have no effect here, because {kind}; leave it out")
        self._check_stream()
        share = self.instruction_share
        if share is not None and not 0 <= share[0] < share[1] <= 1:
            raise ValueError(f"instruction_share: {share} is not a range; [0.0, 0.5] is the first half")

    def _check_stream(self) -> None:
        if self.streaming and self.sample is None:
            raise ValueError(
                "streaming: needs sample:, the number of rows to read; a stream is for data larger than the disk"
            )
        if self.sample is not None and not self.streaming and not self.is_drawn:
            raise ValueError("sample would have no effect without streaming: true; rows: draws that many rows")


_NOT_OF_DATASETS = frozenset({"rows", "seed"})
_NOT_GENERATED = frozenset(
    {"name", "revision", "split", "data_files", "streaming", "sample", "fraction", "format", "roles", "label"}
)


class Conversations(Origin):
    """Conversations, all of them or some that are drawn."""

    rows: Count | None = None
    """With `builtin`, which needs it, the number of rows to generate; else that many of the usable rows are drawn."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of a dataset's usable rows to draw, in place of `rows`."""
    seed: Seed | None = None
    """Seed of the generated rows, or of the draw; the recipe's `seed` by default."""
    format: ConversationFormat | None = None
    """Format of the dataset's rows; by default recognised by the columns of the first ones."""

    @property
    def draw(self) -> dict[str, int | float]:
        """How many rows are drawn: `rows`, `fraction` or `weight`; empty if all are taken."""
        ways = {"rows": self.rows if self.builtin is None else None, "fraction": self.fraction}
        return {name: value for name, value in ways.items() if value is not None}

    @property
    def is_drawn(self) -> bool:
        """Whether only some of the usable rows are taken, drawn by a seed."""
        return bool(self.draw)

    def check_draw(self) -> None:
        """Check the origin, and that rows are drawn in one way.

        Raises:
            ValueError: as ``check_origin``, or two ways are stated.
        """
        self.check_origin(of_dataset=("rows",))
        if len(self.draw) > 1:
            raise ValueError(f"{' and '.join(self.draw)} say twice how many rows are drawn; state one of them")


class Source(Conversations):
    """Conversations from one place."""

    builtin: Literal["quickstart", "quickstart_heldout", "quickstart_pretraining"] | None = None
    """Generated conversations: a pool, held-out ones without flaws, or text of mixed quality for a pretraining."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        self.check_draw()
        return self


class Target(Source):
    """The questions of a task: conversations, or their embeddings alone."""

    embeddings: str | None = None
    """A table with the columns `id` and `embedding`, made like those of `embeddings.file`; in place of `dataset`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.embeddings is None:
            self.check_draw()
        elif self.model_fields_set != {"embeddings"}:
            others = ", ".join(sorted(self.model_fields_set - {"embeddings"}))
            raise ValueError(f"embeddings: is a file of vectors and stands alone; leave {others} out")
        return self


class WeightedSource(Source):
    """One of the sources of a pool."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Share of the pool relative to the other weights, in place of `rows`; as many rows as all weights allow."""

    @property
    def draw(self) -> dict[str, int | float]:
        """How many rows are drawn: `rows`, `fraction` or `weight`; empty if all are taken."""
        return {**super().draw, **({} if self.weight is None else {"weight": self.weight})}


class Deduplicate(Section):
    """Which copies are left out of the pool; of each, the row with the lowest id is kept."""

    exact: bool = True
    """Leaves out rows whose messages have the same text, apart from case, white space and forms of a character."""
    near: Annotated[float, Field(gt=0, le=1)] | None = None
    """Leaves out rows that share at least this part of their five-word sequences with a kept one, found by MinHash."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.exact and self.near is None:
            raise ValueError("exact: false without near: leaves nothing out; leave deduplicate: out")
        return self


class Mix(Section):
    """How many rows the pool takes of each source, drawn by a seed after copies are left out."""

    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Shares by source, relative to each other; as many rows as they allow without repeating one."""
    rows: dict[str, Count] = Field(default_factory=dict)
    """Numbers of rows by source. A source under neither is taken whole."""
    seed: int | None = None
    """Seed of the draw; the recipe's `seed` by default."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.weights and not self.rows:
            raise ValueError("state weights: or rows: by source, or leave mix: out")
        twice = sorted(self.weights.keys() & self.rows.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} is under weights: and rows:; state one of them")
        if len(self.weights) == 1:
            raise ValueError("weights: one alone would have no effect; state it for the others too, or rows:")
        return self


class Pool(Conversations):
    """The conversations to select from: one source, or several that are merged."""

    builtin: Literal["quickstart"] | None = None
    """Generated conversations whose complexity, quality and near-duplicates are known."""
    sources: Annotated[list[WeightedSource], Field(min_length=1)] | None = None
    """Several sources, merged in this order; in place of the fields of a single one."""
    deduplicate: Deduplicate | None = None
    """Leaves out copies, as a stage of its own; by default every row that can be used is in the pool."""
    mix: Mix | None = None
    """How many rows are taken of each source once copies are left out; by default all."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        own = self._own_fields()
        if self.sources is None:
            self.check_draw()
        elif own:
            raise ValueError(f"sources: stands alone; move {', '.join(own)} into an entry of it")
        elif sum(source.weight is not None for source in self.sources) == 1:
            raise ValueError(
                "sources: one weight alone would have no effect; state it for the others too, or leave it out"
            )
        return self

    def _own_fields(self) -> list[str]:
        return sorted(self.model_fields_set - {"sources", "deduplicate", "mix"})

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
    seed: Seed | None = None
    """Seed of the generated rows, or of the sample; the recipe's `seed` by default."""
    sample: Count | None = None
    """Number of pairs to draw from the dataset; all by default. Of a stream, the number of rows to read."""

    @property
    def is_drawn(self) -> bool:
        """Whether only some of the usable pairs are taken, drawn by a seed."""
        return self.sample is not None and not self.streaming

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.builtin is not None and self.sample is not None:
            raise ValueError("sample would have no effect here, because builtin: data is generated; state rows:")
        if self.builtin is None and self.rows is not None:
            raise ValueError("rows: is for builtin:, which generates that many; sample: draws that many pairs")
        self.check_origin()
        return self


class PairShare(Section):
    """A budget other than a number of pairs."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the pairs, rounded down, one pair at least."""


class PairSelection(Section):
    """Which pairs are trained on, by the margin between their two answers (docs/selection.md)."""

    by: Annotated[str, Field(min_length=1)]
    """`margin`: how much likelier the chosen answer is under the reference; else a reward of the data by its name."""
    order: Literal["largest", "smallest"]
    """Which margins come first. Published rules disagree, so there is no default."""
    budget: Count | PairShare
    """How many pairs are kept: a number, or a share."""

    @property
    def plain_budget(self) -> int | dict[str, float]:
        """The budget as plain data (`deita_train/budget.py`)."""
        return self.budget.model_dump() if isinstance(self.budget, PairShare) else self.budget


class TrainingPreferences(Preferences):
    """Preference pairs to train on, and which of them."""

    select: PairSelection | None = None
    """Keeps the pairs with the largest or the smallest margin; by default all are trained on."""

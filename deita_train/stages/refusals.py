"""Rows that a stage's chat template cannot write as they are: written as text, or counted and left out."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

import datasets

from deita_train.data.parallel import in_parallel
from deita_train.data.row_refusal import MARK_THE_ANSWERS, WRITABLE_AS_TEXT, RowRefused
from deita_train.errors import UserError
from deita_train.stages.context import StageContext

Made = TypeVar("Made")


@dataclass
class Refusals:
    """The rows of one stage that were left out.

    Attributes:
        section: the recipe's section that names the template.
        limit: the share of rows above which the stage fails.
        counts: rows by reason.
        last_reason: of the row refused last.
        examples: of each reason the first row, as "id: what was found".
        is_logged: whether each row is named on standard output, the stage's log.
        as_text: how many rows were written as text, because the template does not know what they hold.
        writes_text: whether the recipe asks for that.
    """

    section: str
    limit: float
    counts: Counter[str] = field(default_factory=Counter)
    last_reason: str = ""
    examples: dict[str, str] = field(default_factory=dict)
    is_logged: bool = True
    as_text: int = 0
    writes_text: bool = False

    @classmethod
    def of(cls, context: StageContext) -> Self:
        """Those of a stage, none so far."""
        return cls.of_stage(context.label, context.identity, context.runtime)

    @classmethod
    def of_stage(cls, label: str, identity: Mapping[str, Any], runtime: Mapping[str, Any], **fields: Any) -> Self:
        """Those of a stage by its configuration, none so far."""
        share = runtime.get("max_refused_share", 0.0)
        writes_text = identity.get("unsupported_fields") == "text"
        return cls(runtime.get("section", label), share, writes_text=writes_text, **fields)

    @property
    def how(self) -> dict[str, Any]:
        """How rows are written: the arguments by which functions of `stages/rows.py` differ between recipes."""
        return {"unsupported_fields": "text" if self.writes_text else "drop", "on_text": self.count_text}

    def rows_of(
        self, context: StageContext, table: datasets.Dataset, write: Callable[[Any], Made], what: str = "rows rendered"
    ) -> Iterator[tuple[int, str, Made | None]]:
        """The number and id of each row, and what `write` makes of it; None for a row that the template refuses.

        Raises:
            UserError: after the last row, if more were refused than the limit allows.
        """
        number = 0
        for written, as_text in in_parallel(len(table), partial(self._written, table, write)):
            self.as_text += as_text
            for row_id, made in written:
                context.progress.update(number + 1, len(table), what)
                if isinstance(made, RowRefused):
                    self._count(row_id, made)
                yield number, row_id, None if isinstance(made, RowRefused) else made
                number += 1
        self.check(len(table))

    def _written(
        self, table: datasets.Dataset, write: Callable[[Any], Made], part: range
    ) -> tuple[list[tuple[str, Made | RowRefused]], int]:
        """The ids of some rows with what `write` makes of them, or why it refuses, and how many are written as text.

        Called in any process, so it must not change what is counted here.
        """
        before = self.as_text
        written: list[tuple[str, Made | RowRefused]] = []
        for row in table.select(part):
            try:
                written.append((row["id"], write(row)))
            except RowRefused as refusal:
                written.append((row["id"], refusal))
        as_text, self.as_text = self.as_text - before, before
        return written, as_text

    def told(self) -> dict[str, Any]:
        """The counts as JSON, for a stage that has the same rows."""
        return {"counts": self.counts, "examples": self.examples, "as_text": self.as_text}

    def take_over(self, told: Mapping[str, Any], num_rows: int) -> None:
        """Count what another stage told of the same `num_rows` rows.

        Raises:
            UserError: more were refused than the limit allows.
        """
        self.counts, self.examples, self.as_text = Counter(told["counts"]), dict(told["examples"]), told["as_text"]
        self.check(num_rows)

    def unless_refused(self, row_id: str, make: Callable[[], Made]) -> Made | None:
        """What `make` returns, or None for a row that the template refuses, which is counted and named in the log."""
        try:
            return make()
        except RowRefused as refusal:
            self._count(row_id, refusal)
            return None

    def count_text(self) -> None:
        """Count a row that was written as text."""
        self.as_text += 1

    def _count(self, row_id: str, refusal: RowRefused) -> None:
        if self.is_logged:
            sys.stdout.write(f"{row_id} is left out: {refusal.reason}: {refusal.detail}\n")
        self.counts[refusal.reason] += 1
        self.last_reason = refusal.reason
        self.examples.setdefault(refusal.reason, f"{row_id}: {refusal.detail}")

    def check(self, num_rows: int) -> dict[str, int]:
        """The counts by reason, once all `num_rows` were tried.

        Raises:
            UserError: more rows were refused than the limit allows.
        """
        refused = self.counts.total()
        if refused > self.limit * num_rows:
            counts = ", ".join(f"{reason}: {count:,}" for reason, count in self.counts.most_common())
            raise UserError(
                f"{self.section}: the chat template cannot write {refused:,} of {num_rows:,} rows ({counts}), above "
                f"the share {self.limit:g} of {self.section}.max_refused_share. {self._named()}. "
                f"{self._ways_on()}"
            )
        return dict(self.counts)

    def _named(self) -> str:
        """One row of each reason."""
        found = "; ".join(self.examples.values())
        return f"The first of each reason: {found}" if len(self.examples) > 1 else f"The first: {found}"

    def _ways_on(self) -> str:
        """What to do about the reasons that were found."""
        as_text = self.counts.keys() & WRITABLE_AS_TEXT and not self.writes_text
        text = f"state {self.section}.unsupported_fields: text, which writes them as text, " if as_text else ""
        marks = f"{MARK_THE_ANSWERS}, " if "answers_not_found" in self.counts else ""
        return f"Choose another chat_template, {marks}{text}or raise the share to leave them out."

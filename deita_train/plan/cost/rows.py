"""How many rows and tokens each stage of a plan reads: counted, estimated, from a table, or unknown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deita_train.budget import amount_of, budget_rows
from deita_train.cost.known_datasets import KNOWN_DATASETS, known_rows
from deita_train.data import quickstart
from deita_train.data.places import find_place
from deita_train.errors import UserError
from deita_train.plan.cost.samples import Length, Sample, length_of, sample_files
from deita_train.plan.node import Node
from deita_train.store.artefacts import Store

# How a number of rows is known, from the surest.
COUNTED, ESTIMATED, TABLE, UNKNOWN = "counted", "estimated", "table", "unknown"
_SURENESS = (COUNTED, ESTIMATED, TABLE, UNKNOWN)
# Of generated rows, as many are made and measured.
_MADE = 50
_MAKERS: Mapping[str, Callable[[int, int], list[dict[str, Any]]]] = {
    "quickstart": quickstart.make_pool,
    "quickstart_heldout": quickstart.make_heldout,
    "quickstart_pretraining": quickstart.make_pretraining_rows,
    "quickstart_preferences": quickstart.make_preferences,
    "quickstart_heldout_preferences": quickstart.make_heldout_preferences,
    "quickstart_questions": quickstart.make_questions,
}


@dataclass(frozen=True)
class Rows:
    """What is known of some rows.

    Attributes:
        number: how many; None if unknown.
        how: how that is known.
        lengths: of some of them; empty if none is at hand.
        mean: tokens of a row on average, from the table; None if unknown.
        total: tokens of all, where a budget states them.
    """

    number: int | None = None
    how: str = UNKNOWN
    lengths: tuple[Length, ...] = ()
    mean: int | None = None
    total: int | None = None

    def tokens(
        self, max_length: int | None, *, of_row: int = 0, of_turn: int = 0, scale: float = 1.0
    ) -> tuple[int | None, bool]:
        """Tokens of all rows, each cut at `max_length`, and whether there may be fewer.

        What a template writes around a row and around each turn counts too; `scale` is how many more tokens the model's
        own tokenizer makes of a text than most.

        Without lengths, no row counts more than `max_length`, or than the average that is known: the mean of what is
        cut is at most what the mean is cut to.
        """
        if self.total is not None:
            return self.total, False
        if self.number is None:
            return None, False
        if self.lengths:
            whole = [scale * (length.tokens + of_row + of_turn * length.turns) for length in self.lengths]
            cut = whole if max_length is None else [min(length, max_length) for length in whole]
            return round(self.number * sum(cut) / len(cut)), False
        bounds = [bound for bound in (self.mean, max_length) if bound is not None]
        return (self.number * min(bounds), True) if bounds else (None, False)

    def longest(self, share: float) -> "Rows":
        """That share of the rows, if they were the longest."""
        kept = sorted(self.lengths, key=lambda length: -length.tokens)
        return replace(self, lengths=tuple(kept[: max(1, round(share * len(kept)))] if kept else ()))


class PlannedRows:
    """The rows of a plan's stages, each found once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[str, Rows] = {}
        self._samples: dict[tuple[Path, ...], Sample | None] = {}

    def of(self, node: Node) -> Rows:
        """The rows that a stage leaves."""
        if node.key not in self._found:
            rows = self._planned(node)
            if not node.is_unresolved and self._store.has(node.id):
                rows = replace(rows, number=self._store.manifest(node.id).rows_out, how=COUNTED)
            self._found[node.key] = rows
        return self._found[node.key]

    def read_by(self, node: Node) -> Rows:
        """The rows that a stage reads."""
        for role in ("pool", "data", "questions", "labels"):
            if role in node.parents:
                return self.of(node.parents[role])
        if node.kind == "train_scorer":
            data = node.identity["data"]
            if "builtin" in data:
                made = quickstart.make_scorer_rows(node.identity["dimension"], min(data["rows"], _MADE), data["seed"])
                return Rows(data["rows"], COUNTED, tuple(map(length_of, made)))
            return self._of_source(data, node.runtime["data"])
        return self.of(node)

    def _planned(self, node: Node) -> Rows:
        if node.kind == "pool":
            parts = zip(node.identity["sources"], node.runtime["sources"], strict=True)
            return _together([self._of_source(*part) for part in parts])
        if node.kind in ("preferences", "questions"):
            return self._of_source(node.identity["source"], node.runtime["source"])
        if node.kind in ("select", "select_pairs"):
            return self._of_selection(node)
        return self.read_by(node) if {"pool", "data", "questions", "labels"} & node.parents.keys() else Rows()

    def _of_selection(self, node: Node) -> Rows:
        pool, budget = self.read_by(node), node.identity["budget"]
        if budget is None:  # the method whole_pool
            return pool
        total = int(amount_of(budget)) if isinstance(budget, Mapping) and "tokens" in budget else None
        if total is not None:
            return replace(pool, number=None, total=total)
        number = budget_rows(budget, pool.number) if pool.number is not None else None
        if number is None:
            number = budget if isinstance(budget, int) else None
        if number is None:
            return Rows()
        # Which rows are kept is not known yet, and methods that add up over turns prefer long ones.
        chosen = pool.longest(number / pool.number) if pool.number else pool
        number = number if pool.number is None else min(number, pool.number)
        return replace(chosen, number=number, how=COUNTED if isinstance(budget, int) else pool.how, mean=None)

    def _of_source(self, source: Mapping[str, Any], location: Mapping[str, Any]) -> Rows:
        if "evolve" in source:
            return Rows()
        rows = self._all_of(source, location)
        if rows.number is None:
            return rows
        if source.get("instruction_share"):
            low, high = source["instruction_share"]
            rows = replace(rows, number=round(rows.number * (high - low)), how=_less_sure(rows.how, ESTIMATED))
        drawn = source.get("draw") or {}
        most = [drawn.get("rows"), source.get("sample"), source.get("first_rows")]
        number = min([rows.number, *(one for one in most if one is not None)])
        return replace(rows, number=round(number * (drawn.get("fraction") or 1)))

    def _all_of(self, source: Mapping[str, Any], location: Mapping[str, Any]) -> Rows:
        if "builtin" in source:
            maker = _MAKERS.get(source["builtin"])
            made = [] if maker is None else maker(min(source["rows"], _MADE), source["seed"])
            return Rows(source["rows"], COUNTED, tuple(map(length_of, made)))
        if "hub" in source:
            return _of_hub(source)
        if "url" in source:
            return Rows()
        return self._of_files(source, location["dataset"])

    def _of_files(self, source: Mapping[str, Any], location: str) -> Rows:
        try:
            place = find_place(location, source.get("data_files") or (), source.get("split"))
        except UserError:
            return Rows()
        files = place.files
        if files not in self._samples:
            self._samples[files] = sample_files(files)
        sample = self._samples[files]
        if sample is None:
            return Rows()
        return Rows(sample.rows, COUNTED if sample.counted else ESTIMATED, sample.lengths)


def _of_hub(source: Mapping[str, Any]) -> Rows:
    number = known_rows(source["hub"], source.get("split"))
    if number is None:
        return Rows()
    return Rows(number, TABLE, mean=KNOWN_DATASETS[source["hub"]].tokens)


def _together(parts: Sequence[Rows]) -> Rows:
    if any(part.number is None for part in parts):
        return Rows()
    lengths = tuple(length for part in parts for length in part.lengths) if all(part.lengths for part in parts) else ()
    how = max((part.how for part in parts), key=_SURENESS.index)
    return Rows(sum(part.number or 0 for part in parts), how, lengths, parts[0].mean if len(parts) == 1 else None)


def _less_sure(one: str, other: str) -> str:
    return max(one, other, key=_SURENESS.index)

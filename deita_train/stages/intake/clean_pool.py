"""Stage `clean_pool`: the pool without copies, mixed by source.

`data/` has the rows that are left in the pool's order, `trace/` every row: why it was left out, which row it repeats,
and how similar the two are.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np

from deita_train.data.conversations import user_turns
from deita_train.data.copies import Copy, find_copies
from deita_train.data.drawing import Draw, drawn_from_sources
from deita_train.data.intake import EXAMPLES_PER_REASON
from deita_train.data.pool import PoolReport
from deita_train.errors import UserError
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, drop_lines, read_once

NOT_IN_MIX = "not_in_mix"
_SEVERAL = 3


@dataclass(frozen=True)
class Cleaned:
    """What became of the N rows of a pool: the copies by place, and which rows are left, `[N]` bool."""

    copies: Mapping[int, Copy]
    left: np.ndarray

    @property
    def reasons(self) -> list[str | None]:
        """Why each row is left out; None for one that is not."""
        return [
            self.copies[place].reason if place in self.copies else None if is_left else NOT_IN_MIX
            for place, is_left in enumerate(self.left)
        ]


def run(context: StageContext) -> StageResult:
    """Clean, and write what is left and what became of every row."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    cleaned = clean(pool, context.identity, lambda done: context.progress.update(done, len(pool), "rows compared"))
    rows = pool.select(np.flatnonzero(cleaned.left))
    rows.save_to_disk(str(context.data_dir))
    _trace(pool, cleaned).save_to_disk(str(context.work_dir / "trace"))
    drops = _drops(cleaned)
    metrics = {
        "rows_in": len(pool),
        "rows_out": len(rows),
        "drops": drops,
        "examples": _examples(list(pool["id"]), cleaned),
        "sources": dict(sorted(Counter(rows["source"]).items())),
        "mean_turns": float(np.mean([len(user_turns(messages)) for messages in rows["messages"]])),
    }
    return StageResult(len(pool), len(rows), drops, metrics)


def clean(
    pool: datasets.Dataset, identity: Mapping[str, Any], on_row: Callable[[int], None] = lambda done: None
) -> Cleaned:
    """Find the copies, then draw from what is left by source.

    Raises:
        UserError: the mix names a source that the pool does not have, or asks for more rows than a source has left.
    """
    ids, copies = list(pool["id"]), {}
    if identity["deduplicate"] is not None:
        columns = [name for name in ("messages", "tools") if name in pool.column_names]
        rows = pool.select_columns(columns)
        copies = find_copies(ids, rows.__getitem__, **identity["deduplicate"], on_row=on_row)
    left = np.ones(len(pool), dtype=bool)
    left[list(copies)] = False
    if identity["mix"] is not None:
        left = _mixed(ids, list(pool["source"]), left, identity["mix"])
    return Cleaned(copies, left)


def cleaned_rows(
    pool: datasets.Dataset, report: PoolReport, identity: Mapping[str, Any]
) -> tuple[datasets.Dataset, PoolReport]:
    """The rows that are left of a pool that was read, and the account of them."""
    cleaned = clean(pool, identity)
    rows = pool.select(np.flatnonzero(cleaned.left))
    drops, examples = _drops(cleaned), _examples(list(pool["id"]), cleaned)
    return rows, replace(report, rows_in=len(pool), rows_out=len(rows), drops=drops, examples=examples)


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows are left, and why the others are not."""
    _, report = read_once(stage)
    yield f"{stage.label}: {report.rows_out:,} of {report.rows_in:,} rows are left"
    yield from drop_lines(report.drops, report.examples)


def _mixed(ids: Sequence[str], sources: Sequence[str], left: np.ndarray, mix: Mapping[str, Any]) -> np.ndarray:
    """Which rows are left, `[N]` bool, once each source that the mix names is drawn from."""
    places: dict[str, list[int]] = {}
    for place in np.flatnonzero(left).tolist():
        places.setdefault(sources[place], []).append(place)
    unknown = sorted({*mix["weights"], *mix["rows"]} - places.keys())
    if unknown:
        raise UserError(
            f"pool.mix names {', '.join(map(repr, unknown))}, and the rows are of {_some(sorted(places))}. A source is "
            "the column source of a row, else the name of its file or dataset."
        )
    draws: dict[str, Draw | None] = dict.fromkeys(places)
    draws |= {name: Draw(mix["seed"], weight=weight) for name, weight in mix["weights"].items()}
    draws |= {name: Draw(mix["seed"], rows=rows) for name, rows in mix["rows"].items()}
    drawn = drawn_from_sources(draws, {name: [ids[place] for place in of_source] for name, of_source in places.items()})
    assert drawn is not None, "a mix names a source"
    mixed = np.zeros(len(ids), dtype=bool)
    mixed[np.concatenate(list(places.values()))[drawn]] = True
    return mixed


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SEVERAL])) + (f" and {len(names) - _SEVERAL} more" * (len(names) > _SEVERAL))


def _drops(cleaned: Cleaned) -> dict[str, int]:
    return dict(sorted(Counter(reason for reason in cleaned.reasons if reason is not None).items()))


def _examples(ids: Sequence[str], cleaned: Cleaned) -> dict[str, list[str]]:
    """For each reason of a copy its first rows, by id, with what they repeat."""
    examples: dict[str, list[str]] = {}
    for place in sorted(cleaned.copies, key=ids.__getitem__):
        copy = cleaned.copies[place]
        of_reason = examples.setdefault(copy.reason, [])
        if len(of_reason) < EXAMPLES_PER_REASON:
            of_reason.append(f"{ids[place]} repeats {ids[copy.of]} (similarity {copy.similarity:.3f})")
    return examples


def _trace(pool: datasets.Dataset, cleaned: Cleaned) -> datasets.Dataset:
    ids, copies = list(pool["id"]), [cleaned.copies.get(place) for place in range(len(pool))]
    columns = {
        "id": ids,
        "source": list(pool["source"]),
        "drop_reason": cleaned.reasons,
        "repeats": [None if copy is None else ids[copy.of] for copy in copies],
        "similarity": [None if copy is None else copy.similarity for copy in copies],
    }
    types = {name: datasets.Value("float64" if name == "similarity" else "string") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(types))

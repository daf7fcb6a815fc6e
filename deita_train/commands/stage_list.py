"""The stages of a plan on the terminal: a framed table, or a list where the table would break ids."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console

from deita_train.commands.printed_table import print_table
from deita_train.recipe.sweep import BASE_RUN
from deita_train.table import Table, words

# Sentences and names of cells may fold in the framed table, though not into fewer columns than this.
_FOLDED = 30
# What a frame adds to the columns: a line and two spaces each, and the last line.
_FRAME = 3
_LEAST_STATUS = len("to run: not made yet")


@dataclass(frozen=True)
class StageLine:
    """One stage as `plan` shows it; `cell` is empty for the base run, `launch` for a stage without a model."""

    label: str
    cell: str
    artefact: str
    status: str
    reason: str
    launch: str


def print_stages(console: Console, title: str, stages: Sequence[StageLine], *, has_cells: bool) -> None:
    """Print the stages under a title, so that labels and ids are never broken."""
    table = _table(title, stages, has_cells)
    if _framed_width(table) <= console.width:
        print_table(console, table)
        return
    for line in (title, "", *_listed(stages, console.width, has_cells), ""):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _table(title: str, stages: Sequence[StageLine], has_cells: bool) -> Table:
    columns = words("stage", *(["cell"] if has_cells else []), "artefact", "status", "why", "launch")
    rows = [
        (of.label, *([of.cell] if has_cells else []), of.artefact, of.status, of.reason, of.launch) for of in stages
    ]
    return Table(columns, tuple(rows), title)


def _framed_width(table: Table) -> int:
    """The columns that a framed table needs to leave everything whole but what may fold."""
    texts = zip(table.titles, *table.rows, strict=True)
    widths = [max(map(len, column)) for column in texts]
    whole = [
        min(width, _FOLDED) if title in ("why", "cell") else width
        for title, width in zip(table.titles, widths, strict=True)
    ]
    return sum(whole) + _FRAME * len(whole) + 1


def _listed(stages: Sequence[StageLine], width: int, has_cells: bool) -> Iterator[str]:
    """A line for each stage, below the name of its cell; a long reason goes on in its own column."""
    labels, artefacts, launches = (
        max(len(getattr(of, name)) for of in stages) for name in ("label", "artefact", "launch")
    )
    for cell, of_cell in groupby(stages, key=lambda of: of.cell):
        if has_cells:
            yield cell or BASE_RUN
        for of in of_cell:
            head = f"{'  ' if has_cells else ''}{of.label:{labels}} {of.artefact:{artefacts}} {of.launch:{launches}} "
            status = f"{of.status}: {of.reason}" if of.status != "done" else of.status
            first, *rest = textwrap.wrap(
                status, max(_LEAST_STATUS, width - len(head)), break_long_words=False, break_on_hyphens=False
            )
            yield head + first
            yield from (" " * len(head) + line for line in rest)

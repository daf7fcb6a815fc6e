"""The stages of a plan on the terminal: a tree of cells and sections, narrow enough for 80 columns."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console

from deita_train.recipe.sweep import BASE_RUN

# The first part of a label -> its section, where the two differ.
_SECTIONS: Mapping[str, str] = {
    "pretraining_data": "base", "rank": "evolve", "seeds": "evolve", "clean_pool": "pool", "train_scorer": "scorers",
    "score": "scorers", "embed": "embedding", "lengths": "select", "target_data": "select", "sft_data": "sft",
    "dpo_data": "dpo", "dpo_pairs": "dpo", "reference": "dpo",
    **dict.fromkeys(
        (
            "heldout_data", "heldout_pairs", "evaluate_pairs", "questions", "generate", "judged", "mt_bench",
            "alpaca_eval", "lm_eval", "contamination",
        ),
        "evaluate",
    ),
}  # fmt: skip
_INDENT = "  "
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


def section_of(label: str) -> str:
    """The section of the recipe that a stage belongs to."""
    first = label.partition(".")[0]
    return _SECTIONS.get(first, first)


def print_stages(
    console: Console, title: str, stages: Sequence[StageLine], *, has_cells: bool, with_keys: bool = False
) -> None:
    """Print the stages under a title, so that labels and ids are never broken."""
    for line in (title, "", *_tree(stages, console.width, has_cells, with_keys), ""):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _tree(stages: Sequence[StageLine], width: int, has_cells: bool, with_keys: bool) -> Iterator[str]:
    """A line for each stage, below its section and its cell; a long reason goes on in its own column."""
    names, launches = (max(len(getattr(of, name)) for of in stages) for name in ("label", "launch"))
    keys = max(len(of.artefact) for of in stages) if with_keys else 0
    for cell, of_cell in groupby(stages, key=lambda of: of.cell):
        outer = _INDENT if has_cells else ""
        if has_cells:
            yield cell or BASE_RUN
        for section, of_section in _by_section(list(of_cell)).items():
            if [of.label for of in of_section] != [section]:
                yield f"{outer}{section}"
            inner = "" if [of.label for of in of_section] == [section] else _INDENT
            for of in of_section:
                name = f"{outer}{inner}{of.label}"
                head = f"{name:{names + 2 * len(_INDENT)}} {of.launch:{launches}} "
                if with_keys:
                    head += f"{of.artefact:{keys}} "
                yield from _with_status(head, of, width)


def _by_section(stages: Sequence[StageLine]) -> dict[str, list[StageLine]]:
    sections: dict[str, list[StageLine]] = {}
    for of in stages:
        sections.setdefault(section_of(of.label), []).append(of)
    return sections


def _with_status(head: str, of: StageLine, width: int) -> Iterator[str]:
    status = of.status if of.status == "done" else f"{of.status}: {of.reason}"
    room = max(_LEAST_STATUS, width - len(head))
    first, *rest = textwrap.wrap(status, room, break_long_words=False, break_on_hyphens=False)
    yield head + first
    yield from (" " * len(head) + line for line in rest)

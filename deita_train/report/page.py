"""Renders a run's report as one HTML page and as Markdown, with its cards, and publishes them at once."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deita_train.report.cards.card_names import FOLDER as CARDS
from deita_train.report.cards.dataset_cards import dataset_cards_of
from deita_train.report.cards.model_cards import cards_of
from deita_train.report.results.groups import groups_of
from deita_train.report.results.headline import headline
from deita_train.report.results.summary import RunSummary, read_summary
from deita_train.report.results.verdict import verdict
from deita_train.report.sections.all_sections import sections_of
from deita_train.report.sections.rehearsal_section import marked
from deita_train.report.tables.result_tables import result_tables
from deita_train.report.templating import render_card, render_dataset_card, render_markdown, render_page

AT_FDCWD = -100
RENAME_EXCHANGE = 2
# The result table as plain data, for a command line that imports nothing heavy.
RESULT = "result.json"


def write_report(run_dir: Path, store_dir: Path) -> Path:
    """Write `report/` (report.html, report.md, figures/, cards/) in `run_dir`; return the path of report.html.

    The page is one file that needs no other; it links to the cards beside it. The folder is written beside its
    place and then exchanged with the old one, so that a report that is killed leaves the old folder or the new one.

    Raises:
        UserError: as `read_summary`.
    """
    context = page_context(read_summary(run_dir, store_dir))
    report, partial = run_dir / "report", run_dir / f".report-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_folder(partial, context)
        publish(partial, report)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report / "report.html"


def page_context(summary: RunSummary) -> dict[str, Any]:
    """What the templates render."""
    groups = groups_of(summary)
    started = [item.manifest["started"] for _, item in summary.artefacts().values()]
    return {
        "name": summary.name,
        "description": summary.description,
        "seed": summary.seed,
        "num_cells": len(summary.cells),
        "num_failed": len(summary.failed_cells),
        "last_started": max(started, default=""),
        "headline": headline(summary, groups),
        "verdict": verdict(summary, groups),
        "sections": sections_of(summary, groups),
        "cards": {
            **{card.file: render_card(card) for card in cards_of(summary)},
            **{card.file: render_dataset_card(card) for card in dataset_cards_of(summary)},
        },
        "is_rehearsal": bool(summary.rehearsal),
        "result": [asdict(marked(table) if summary.rehearsal else table) for table in result_tables(summary)],
    }


def publish(partial: Path, place: Path) -> None:
    """Put the folder `partial` at `place`; what was there is at `partial` afterwards, or gone."""
    if not place.exists():
        partial.rename(place)
    elif not _exchange(partial, place):
        # Without an atomic exchange, a kill between the two renames leaves the old report under its other name.
        old = place.with_name(f".{place.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        partial.rename(place)
        shutil.rmtree(old)


def _write_folder(folder: Path, context: dict[str, Any]) -> None:
    (folder / "figures").mkdir(parents=True)
    for section in context["sections"]:
        for figure in section.figures:
            (folder / "figures" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    for name, text in context["cards"].items():
        (folder / CARDS).mkdir(exist_ok=True)
        (folder / CARDS / name).write_text(text, encoding="utf-8")
    (folder / RESULT).write_text(json.dumps(context["result"], indent=1, ensure_ascii=False), "utf-8")
    (folder / "report.md").write_text(render_markdown(context), "utf-8")
    (folder / "report.html").write_text(render_page(context), "utf-8")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot (Linux 3.15 and glibc 2.28 can)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0

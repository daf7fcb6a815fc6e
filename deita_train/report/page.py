"""Renders a run's report as one HTML page and as Markdown, and publishes both at once."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from deita_train.report.cards.card_names import FOLDER as CARDS
from deita_train.report.cards.model_cards import Card, cards_of
from deita_train.report.figures.drawing import SERIES, themed
from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import RunSummary, read_summary
from deita_train.report.results.verdict import headline, verdict
from deita_train.report.sections.report_sections import sections_of
from deita_train.report.tables.result_tables import result_tables

AT_FDCWD = -100
RENAME_EXCHANGE = 2
# The result table as plain data, for a command line that imports nothing heavy.
RESULT = "result.json"
# The page folds up a longer table.
MAX_ROWS_SHOWN = 40


def write_report(run_dir: Path, store_dir: Path) -> Path:
    """Write ``report/`` (report.html, report.md, figures/, cards/) in ``run_dir``; return the path of report.html.

    The page is one file that needs no other; it links to the model cards beside it. The folder is written beside its
    place and then exchanged with the old one, so that a report that is killed leaves the old folder or the new one.
    Raises as ``read_summary``.
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
        "cards": cards_of(summary),
        "series": SERIES,
        "max_rows": MAX_ROWS_SHOWN,
        "result": [asdict(table) for table in result_tables(summary)],
    }


def publish(partial: Path, place: Path) -> None:
    """Put the folder ``partial`` at ``place``; what was there is at ``partial`` afterwards, or gone."""
    if not place.exists():
        partial.rename(place)
    elif not _exchange(partial, place):
        # No atomic exchange on this system: a kill between these two lines leaves the old report under its other name.
        old = place.with_name(f".{place.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        partial.rename(place)
        shutil.rmtree(old)


def escape_markdown(text: object) -> str:
    """``text`` on one line, with the characters that Markdown or a table would read escaped."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", line)


def unbroken(text: str) -> str:
    """A number that stays on one line: only what stands in brackets after it may go to the next."""
    return re.sub(r" (?!\()", "\N{NO-BREAK SPACE}", text)


def fence(text: str) -> str:
    """A row of backticks longer than any within ``text``."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _write_folder(folder: Path, context: dict[str, Any]) -> None:
    (folder / "figures").mkdir(parents=True)
    for section in context["sections"]:
        for figure in section.figures:
            (folder / "figures" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    _write_cards(folder / CARDS, context["cards"])
    (folder / RESULT).write_text(json.dumps(context["result"], indent=1, ensure_ascii=False), "utf-8")
    (folder / "report.md").write_text(_environment(False).get_template("report.md.jinja").render(context), "utf-8")
    (folder / "report.html").write_text(_environment(True).get_template("report.html.jinja").render(context), "utf-8")


def _write_cards(folder: Path, cards: list[Card]) -> None:
    template = _environment(False).get_template("model_card.md.jinja")
    if cards:
        folder.mkdir()
    for card in cards:
        (folder / card.file).write_text(template.render(card=card), encoding="utf-8")


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deita_train.report", "templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(themed=themed, md=escape_markdown, fence=fence, unbroken=unbroken)
    return environment


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot (Linux 3.15 and glibc 2.28 can)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0

"""The templates of the page, its Markdown and the cards, and the filters that they use."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from deita_train import number_text
from deita_train.budget import in_words
from deita_train.report.cards.card import sources_of
from deita_train.report.cards.card_names import DATASET_PLACE, PLACE
from deita_train.report.cards.dataset_cards import DatasetCard
from deita_train.report.cards.model_cards import Card
from deita_train.report.figures.drawing import SERIES, themed
from deita_train.report.results.rendered import refused, template_words
from deita_train.report.results.result_measures import TUNED
from deita_train.report.tables.fitting import LEVELS, is_of_texts, is_short, level, parts_of
from deita_train.report.texts import visible
from deita_train.table import FOLDED_AFTER, LONG, escape_markdown, shown_in_markdown

# The page folds up a longer table.
MAX_ROWS_SHOWN = 40


def render_page(context: dict[str, Any]) -> str:
    """The report as one HTML page."""
    shown = {"series": SERIES, "max_rows": MAX_ROWS_SHOWN, "folded_after": FOLDED_AFTER, "widths": LEVELS}
    return _environment(True).get_template("report.html.jinja").render(context, **shown)


def render_markdown(context: dict[str, Any]) -> str:
    """The report as Markdown."""
    return _environment(False).get_template("report.md.jinja").render(context)


def render_card(card: Card) -> str:
    """A model's README.md in the Hub's format."""
    return _environment(False).get_template("model_card.md.jinja").render(card=card, tuned=TUNED, place=PLACE)


def render_dataset_card(card: DatasetCard) -> str:
    """A selection's README.md in the Hub's format."""
    return _environment(False).get_template("dataset_card.md.jinja").render(card=card, tuned=TUNED, place=DATASET_PLACE)


def unbroken(text: str) -> str:
    """A number that stays on one line: only a bracket after it may move to the next."""
    return re.sub(r" (?!\()", "\N{NO-BREAK SPACE}", text)


def breakable(text: str) -> Markup:
    """A text in which long names may be broken after their dots, dashes and underscores."""
    return Markup("").join(
        Markup("<wbr>").join(parts_of(word)) if word.strip() else word for word in re.split(r"(\s+)", text)
    )


def fence(text: str) -> str:
    """A row of backticks longer than any within `text`."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _seen(value: Any) -> Any:
    """What a template writes, with the control characters of data made visible."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deita_train.report", "templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_seen,
    )
    environment.filters.update(
        count=number_text.count,
        decimals=number_text.decimals,
        breakable=breakable,
        fence=fence,
        in_words=in_words,
        is_of_texts=is_of_texts,
        is_short=is_short,
        json=json.dumps,
        level=level,
        md=escape_markdown,
        md_beginning=lambda text: escape_markdown(shown_in_markdown(text, LONG)),
        plural=number_text.plural,
        significant=number_text.significant,
        sources_of=sources_of,
        refused=refused,
        template_words=template_words,
        themed=themed,
        unbroken=unbroken,
    )
    return environment

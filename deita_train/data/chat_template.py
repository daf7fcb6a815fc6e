"""Checks on a chat template before anything is rendered: valid Jinja, with the assistant's words marked."""

import re

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from deita_train.errors import UserError

_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class _Generation(Extension):
    """The `generation` block that transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_chat_template(text: str, *, marked: bool) -> None:
    """Check that ``text`` is a Jinja template whose output does not depend on the date.

    Args:
        text: the template.
        marked: whether it must also mark the assistant's words.

    Raises:
        UserError: naming the template's line, or what to put around the assistant's words.
    """
    try:
        Environment(extensions=[_Generation, loopcontrols]).parse(text)
    except TemplateSyntaxError as error:
        raise UserError(f"line {error.lineno} is not valid Jinja: {error.message}; fix the template") from None
    if "strftime_now" in text and "macro strftime_now" not in text:
        raise UserError(
            "it writes the current date (strftime_now), so the same rows would become different tokens tomorrow; "
            "replace it with fixed text"
        )
    if marked and _MARK.search(text) is None:
        raise UserError(
            "it does not mark what the assistant writes, so there would be nothing to train on; put the assistant's "
            "words and the end-of-turn token between {% generation %} and {% endgeneration %}"
        )

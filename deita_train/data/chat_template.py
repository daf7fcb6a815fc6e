"""What a chat template must be before anything is rendered with it: Jinja, with the assistant's words marked."""

import re

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from deita_train.errors import UserError

_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class _Generation(Extension):
    """The block that transformers adds to Jinja for the assistant's words."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_chat_template(text: str, *, marked: bool) -> None:
    """Check that ``text`` is a Jinja template that writes the same today and tomorrow, and if ``marked`` that it marks
    the assistant's words.

    Raises:
        UserError: with the template's line, or with what to write around the assistant's words.
    """
    try:
        Environment(extensions=[_Generation, loopcontrols]).parse(text)
    except TemplateSyntaxError as error:
        raise UserError(f"line {error.lineno} is no Jinja: {error.message}; mend the template") from None
    if "strftime_now" in text:
        raise UserError(
            "it writes the date of the day (strftime_now), so that the same rows would be other tokens tomorrow; put a "
            "fixed text in its place"
        )
    if marked and _MARK.search(text) is None:
        raise UserError(
            "it does not mark what the assistant writes, so there would be nothing to learn from; put the assistant's "
            "words and the end-of-turn token between {% generation %} and {% endgeneration %}"
        )

"""Why a chat template cannot write a row. Imports nothing heavy."""

from typing import Literal, get_args

Refusal = Literal[
    "refused_by_template",  # the template raises an error
    "text_not_written",  # a message's text is not in what the template writes
    "fields_not_written",  # reasoning, tool calls or tool schemas change nothing in what it writes
    "answer_not_separable",  # a message is not to be trained, and the template does not mark each answer by itself
    "answers_not_found",  # the template marks no answers, and writes a conversation otherwise once more follows
    "prompt_not_prefix",  # of a pair: the tokens of the prompt are not those with which prompt and answer begin
]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
WRITABLE_AS_TEXT: frozenset[Refusal] = frozenset({"refused_by_template", "fields_not_written"})
"""Refusals of what a template does not know, and could write as text."""

MARK_THE_ANSWERS = (
    "name a copy of this one (a .jinja file) in which the assistant's words and the end-of-turn token are between "
    "{% generation %} and {% endgeneration %}"
)
"""What to do about a template whose answers are not found."""


class RowRefused(Exception):
    """A row that the chat template cannot write as it is.

    Attributes:
        reason: one of ``REFUSALS``.
        detail: what was found; it holds no text of the row.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that another process can hand it on
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

"""Rules of this package that answer in place of a chat model: for the quickstart, whose truth they know."""

from collections.abc import Mapping
from types import MappingProxyType

from deita_train.data.quickstart import judge
from deita_train.errors import UserError
from deita_train.llm.answers import Answer
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest

BUILTIN_VERSIONS: Mapping[str, int] = MappingProxyType({"quickstart": judge.VERSION})
"""The rules by name, with the version that is part of what they decide."""


def builtin_answer(endpoint: Endpoint, request: ChatRequest) -> Answer:
    """What the rules say; it takes no token.

    Raises:
        UserError: they do not know the prompt.
    """
    try:
        return Answer(judge.reply(request.messages), "stop", 0, 0)
    except judge.UnknownPrompt:
        raise UserError(
            f"{endpoint.label}: the rules of builtin: {endpoint.builtin} read only the package's own prompts for "
            "ratings, comparisons, evolution and scores, without a file or folder under prompts:, and no tags. Name a "
            "chat model (base_url: or local:) for anything else."
        ) from None

"""A conversation with reasoning, tools and further roles as one of plain text. Temporary."""

from collections.abc import Mapping, Sequence
from typing import Any


def conversation_as_text(messages: Sequence[Mapping[str, Any]], tools: Any) -> list[dict[str, str]]:
    """Stand-in."""
    raise NotImplementedError

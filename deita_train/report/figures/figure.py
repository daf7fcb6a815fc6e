"""A figure of a page, drawn when its picture is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Figure:
    """A panel of a page.

    Attributes:
        name: of its file.
        title: above it.
        text: sentences that say what it shows.
        draw: returns its SVG text.
    """

    name: str
    title: str
    text: str
    draw: Callable[[], str]

    @cached_property
    def svg(self) -> str:
        """The SVG text; drawn when first read, so that what needs no picture draws none."""
        return self.draw()

"""What `inspect` shows of one row, as plain data."""

from dataclasses import dataclass
from typing import Literal

State = Literal["plain", "marked", "cut"]


@dataclass(frozen=True)
class Segment:
    """A stretch of text: `plain`, `marked` (trained or measured), or `cut` (in the row, but the model does not see it).

    `notice` is printed on its own line before it.
    """

    text: str
    state: State
    is_control: bool = False
    notice: str = ""


@dataclass(frozen=True)
class ShownToken:
    """One token that the model sees.

    `text` is None if the token does not stand for whole characters; `piece` is its name in the vocabulary.
    """

    id: int
    text: str | None
    piece: str
    marked: bool


@dataclass(frozen=True)
class TokenSequence:
    """A sequence of tokens with its text.

    `tokens` are those that the model sees, the first at `first_position`; `num_tokens` counts the row's tokens before
    anything was cut or shortened.
    """

    title: str
    segments: tuple[Segment, ...]
    tokens: tuple[ShownToken, ...]
    num_tokens: int
    first_position: int = 0
    note: str = ""

    @property
    def num_marked(self) -> int:
        """Number of tokens that are trained or measured."""
        return sum(token.marked for token in self.tokens)

    @property
    def num_cut(self) -> int:
        """Number of the row's tokens that the model does not see."""
        return self.num_tokens - len(self.tokens)

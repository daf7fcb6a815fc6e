"""Which rows have which tags, in numbers: of a large pool neither rows nor tags are held as objects."""

from array import array
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa


class TagTable:
    """Pairs of a row and a tag; a row that has a tag several times counts once.

    Memory holds twelve bytes for each pair, and each different tag once.
    """

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._rows = array("q")
        self._tags = array("i")

    def add(self, row: int, tags: Iterable[str]) -> None:
        """Add tags of a row, which may have others already."""
        for tag in tags:
            self._rows.append(row)
            self._tags.append(self._number_of.setdefault(tag, len(self._number_of)))

    def rows_with(self, name_of: Mapping[str, str | None] | None = None) -> dict[str, int]:
        """How many rows have each name, in alphabetical order.

        Args:
            name_of: the name of each tag, None for a tag that is dropped; None where tags are their own names.
        """
        names, _, codes = self._pairs(name_of)
        return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))

    def lists(self, name_of: Mapping[str, str | None], has_tags: np.ndarray) -> pa.ListArray:
        """The names of each row's tags, distinct and in alphabetical order.

        Args:
            name_of: the name of each tag, None for a tag that is dropped.
            has_tags: `[N]` bool; the other rows have null.
        """
        names, rows, codes = self._pairs(name_of)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(has_tags)))])
        texts = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), texts.cast(pa.string()), mask=pa.array(~has_tags)
        )

    def _pairs(self, name_of: Mapping[str, str | None] | None) -> tuple[list[str], np.ndarray, np.ndarray]:
        """All names in alphabetical order, and the distinct pairs of a row and a name's place, in order."""
        chosen = [tag if name_of is None else name_of[tag] for tag in self._number_of]
        names = sorted({name for name in chosen if name is not None})
        place_of = {name: place for place, name in enumerate(names)}
        places = np.array([-1 if name is None else place_of[name] for name in chosen], np.int64)
        rows = np.frombuffer(self._rows, np.int64)
        codes = places[np.frombuffer(self._tags, np.int32)]
        named = codes >= 0
        pairs = np.unique(rows[named] * len(names) + codes[named])
        return names, *np.divmod(pairs, max(len(names), 1))

"""The table of the stage `lengths` for one `max_length`: the tokens that SFT reads, and the turns that end in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.data.texts import TextColumn, places_of
from deita_train.selection.token_budget import trained_lengths


@dataclass(frozen=True)
class TrainedLengths:
    """Lengths of the rows of the pool that the chat template can write.

    Attributes:
        table: as the stage published it.
        tokens: how many tokens SFT reads of each of its rows, `[N]` int64.
        max_length: where SFT cuts; None for no cut.
    """

    table: datasets.Dataset
    tokens: np.ndarray
    max_length: int | None

    def tokens_of(self, ids: Sequence[str]) -> np.ndarray:
        """How many tokens SFT reads of the rows with these ids, `[N]` int64; 0 of a row without lengths."""
        places = self._places(ids)
        return np.where(places >= 0, self.tokens[places], 0)

    def answers_of(self, ids: Sequence[str]) -> np.ndarray:
        """How many tokens of each uncut row have a loss, `[N]` float64; nan where they were not counted."""
        places = self._places(ids)
        return np.where(places >= 0, numbers_in(arrow_column(self.table, "answer_tokens"))[places], np.nan)

    def turns_of(self, ids: Sequence[str]) -> pa.ListArray:
        """For each row, which of its user turns are trained to the end of the answer; null without lengths."""
        of_rows, places = arrow_column(self.table, "turn_ends").combine_chunks(), self._places(ids)
        ends = of_rows.values
        is_within = (
            ends.is_valid() if self.max_length is None else pc.less_equal(ends, self.max_length).fill_null(False)
        )
        turns = pa.ListArray.from_arrays(of_rows.offsets, is_within)
        return turns.take(pa.array(places, pa.int64(), mask=places < 0))

    def _places(self, ids: Sequence[str]) -> np.ndarray:
        return places_of(ids, TextColumn(arrow_column(self.table, "id")))


def read_trained_lengths(artefact: Path, max_length: int | None) -> TrainedLengths:
    """Read the published table, cut at `max_length` tokens; None for no cut."""
    table = datasets.load_from_disk(str(artefact / "data"))
    num_tokens = arrow_column(table, "num_tokens").to_numpy().astype(np.int64)
    first_trained = arrow_column(table, "first_trained").fill_null(-1).to_numpy().astype(np.int64)
    return TrainedLengths(table, trained_lengths(num_tokens, first_trained, max_length), max_length)

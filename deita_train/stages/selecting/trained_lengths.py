"""The table of the stage `lengths` for one `max_length`: the tokens that SFT reads, and the turns that end in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from deita_train.selection.token_budget import trained_lengths


@dataclass(frozen=True)
class TrainedLengths:
    """Lengths of each row of the pool, by id.

    Attributes:
        tokens: how many tokens SFT reads.
        turns: for each user turn, whether its answer ends within them.
        answers: how many tokens of the uncut row have a loss; empty where they were not counted.
    """

    tokens: Mapping[str, int]
    turns: Mapping[str, list[bool]]
    answers: Mapping[str, int]

    def tokens_of(self, ids: Sequence[str]) -> np.ndarray:
        """`[N]` int64 in the order of `ids`."""
        return np.array([self.tokens[row_id] for row_id in ids], dtype=np.int64)

    def turns_of(self, ids: Sequence[str]) -> list[list[bool] | None]:
        """For each row, which of its user turns are trained to the end of the answer; None without lengths."""
        return [self.turns.get(row_id) for row_id in ids]


def read_trained_lengths(artefact: Path, max_length: int | None) -> TrainedLengths:
    """Read the published table, cut at `max_length` tokens; None for no cut."""
    table = datasets.load_from_disk(str(artefact / "data")).with_format("arrow")[:]
    num_tokens = table["num_tokens"].to_numpy().astype(np.int64)
    first_trained = table["first_trained"].fill_null(-1).to_numpy().astype(np.int64)
    tokens = trained_lengths(num_tokens, first_trained, max_length).tolist()
    turns = [
        [end is not None and (max_length is None or end <= max_length) for end in ends]
        for ends in table["turn_ends"].to_pylist()
    ]
    ids = table["id"].to_pylist()
    answers = table["answer_tokens"].to_pylist() if "answer_tokens" in table.column_names else []
    by_id = dict(zip(ids, answers, strict=True)) if answers else {}
    return TrainedLengths(dict(zip(ids, tokens, strict=True)), dict(zip(ids, turns, strict=True)), by_id)

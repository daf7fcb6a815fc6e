"""A selection from its parts."""

from deita_train.selection.candidates import Candidates
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import SelectionSettings


def select_by(method, rows, budget=None, embeddings=None, earlier=None, **settings):
    """The trace of a selection by the method."""
    return select_rows(Candidates(rows, SelectionSettings(method, **settings), embeddings), budget, earlier)

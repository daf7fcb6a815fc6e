"""The embedded sample world: generated conversations whose complexity and quality are known."""

from deita_train.data.quickstart.choices import make_choices
from deita_train.data.quickstart.preferences import make_heldout_preferences, make_preferences
from deita_train.data.quickstart.questions import make_questions
from deita_train.data.quickstart.rows import make_heldout, make_pool, make_pretraining_rows, make_scorer_rows

__all__ = [
    "make_choices",
    "make_heldout",
    "make_heldout_preferences",
    "make_pool",
    "make_preferences",
    "make_pretraining_rows",
    "make_questions",
    "make_scorer_rows",
]

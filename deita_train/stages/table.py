"""The literal table of stages: kind -> module.

A module has `run(context) -> StageResult | None` (None on ranks other than 0). It may have `prepare(context)`, which
rank 0 calls before any process group exists, and `finish(context) -> metrics`, which is called before publishing in a
process without one.
"""

from importlib import import_module
from types import ModuleType

STAGES = {
    "pool": "deita_train.stages.pool",
    "base": "deita_train.stages.base",
    "train_scorer": "deita_train.stages.train_scorer",
    "score": "deita_train.stages.score",
    "embed": "deita_train.stages.embed",
    "sentence_embed": "deita_train.stages.sentence_embed",
    "perplexity": "deita_train.stages.perplexity",
    "lengths": "deita_train.stages.lengths",
    "select": "deita_train.stages.select",
    "compare": "deita_train.stages.compare",
    "sft": "deita_train.stages.sft",
    "evaluate": "deita_train.stages.evaluate",
    "preferences": "deita_train.stages.preferences",
    "log_probs": "deita_train.stages.log_probs",
    "dpo": "deita_train.stages.dpo",
    "scores_file": "deita_train.stages.scores_file",
    "embeddings_file": "deita_train.stages.embeddings_file",
}


def stage_module(kind: str) -> ModuleType:
    """The module that carries out stages of that kind."""
    return import_module(STAGES[kind])

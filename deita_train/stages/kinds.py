"""The literal table of stages: kind -> module.

A module has `run(context) -> StageResult | None` (None on ranks other than 0). It may have `prepare(context)`, which
rank 0 calls before any process group exists, and `finish(context) -> metrics`, which is called before publishing in a
process without one.
"""

from importlib import import_module
from types import ModuleType

STAGES = {
    "pool": "deita_train.stages.intake.pool",
    "base": "deita_train.stages.training.base",
    "train_scorer": "deita_train.stages.training.train_scorer",
    "score": "deita_train.stages.inference.score",
    "embed": "deita_train.stages.inference.embed",
    "sentence_embed": "deita_train.stages.inference.sentence_embed",
    "perplexity": "deita_train.stages.inference.perplexity",
    "lengths": "deita_train.stages.inference.lengths",
    "select": "deita_train.stages.selecting.select",
    "compare": "deita_train.stages.selecting.compare",
    "sft": "deita_train.stages.training.sft",
    "evaluate": "deita_train.stages.inference.evaluate",
    "preferences": "deita_train.stages.intake.preferences",
    "log_probs": "deita_train.stages.inference.log_probs",
    "dpo": "deita_train.stages.training.dpo",
    "scores_file": "deita_train.stages.intake.scores_file",
    "embeddings_file": "deita_train.stages.intake.embeddings_file",
}


def stage_module(kind: str) -> ModuleType:
    """The module that carries out stages of that kind."""
    return import_module(STAGES[kind])

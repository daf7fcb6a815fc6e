"""The table of stage kinds: one row says all that the rest of the package knows about a kind. Imports nothing heavy.

A kind's module has `run(context) -> StageResult | None` (None on ranks other than 0). It may have `prepare(context)`,
which rank 0 calls before any process group exists, and `finish(context) -> metrics`, which is called before publishing
in a process without one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from deita_train.stages import facts

RowForm = Literal["text", "conversation", "pair", "scored_turns", "labelled", "question"]
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class ShownRows:
    """How `deita-train inspect` shows the rows of a stage.

    Attributes:
        form: what the model is given: a conversation as text that is all trained, a conversation, a pair of answers,
            a prompt for each turn, a labelled prompt, or a question with its turns.
        verb: what happens to the marked tokens; empty if none is marked.
        note: the same in words.
    """

    form: RowForm
    verb: Literal["trained", "measured", ""]
    note: str


@dataclass(frozen=True)
class StageKind:
    """One kind of stage.

    Attributes:
        version: part of the key. Raised when the code writes something else for the same identity.
        module: its code.
        trains: whether it trains a model: it needs disk for checkpoints, and saves one when it is asked to stop.
        divides: whether its batches can be computed in parts, by processes that know nothing of each other.
        makes_base: whether its model is made from nothing, tokenizer included.
        reuses: what it takes over from published artefacts: single "rows", or the beginning of a "walk".
        has_budget: whether it may find fewer rows than its budget, of which the run then warns.
        warnings: what else the run warns of, from its metrics; None for nothing.
        asks_about_seeds: whether `inspect` shows what it asks a chat model about one seed, and the answers.
        rows: how `inspect` shows its rows; None if it gives no rows to a model.
        logged: whether wandb and the like are told of it even without a launch; of stages with one they always are.
        describe: a line on its metrics for the commands that run one stage; None for none.
        validations: modules whose `validate(stage)` checks the stage's data, and a sample of its rows, for
            `deita-train validate`.
        implied: the values, by dotted path, of fields that are younger than published artefacts. A field with its
            implied value stays out of the key, so that the old artefacts stay valid.
    """

    version: int
    module: str
    trains: bool = False
    divides: bool = False
    makes_base: bool = False
    reuses: Literal["rows", "walk"] | None = None
    has_budget: bool = False
    warnings: Callable[[Metrics], list[str]] | None = None
    asks_about_seeds: bool = False
    rows: ShownRows | None = None
    logged: bool = False
    describe: Callable[[Metrics], str] | None = None
    validations: tuple[str, ...] = ()
    implied: Mapping[str, Any] = field(default_factory=dict)


_FORECAST = "deita_train.stages.asking.forecast"
_ROW_CHECK = "deita_train.stages.inspection.row_check"
_MODEL_CHECK = "deita_train.stages.inspection.model_check"
_CODE = {"model.trust_remote_code": False}
_ANY_TRAINER = {
    "num_train_epochs": 3.0, "max_steps": -1, "warmup_steps": 0, "lr_scheduler_kwargs": None,
    "optim": "adamw_torch_fused", "optim_args": None, "optim_target_modules": None, "weight_decay": 0.0,
    "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "neftune_noise_alpha": None,
    "label_smoothing_factor": 0.0, "average_tokens_across_devices": True, "dataloader_drop_last": False,
    "router_aux_loss_coef": 0.0, "model_init_kwargs": None,
}  # fmt: skip
_SFT_TRAINER = {**_ANY_TRAINER, "learning_rate": 2e-5, "lr_scheduler_type": "cosine", "loss_type": "nll"}
_DPO_TRAINER = {
    **_ANY_TRAINER, "learning_rate": 1e-6, "lr_scheduler_type": "linear", "max_length": 2048, "beta": 0.1,
    "loss_type": ["sigmoid"], "loss_weights": None, "label_smoothing": 0.0, "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5, "discopop_tau": 0.05, "use_weighting": False, "disable_dropout": True,
}  # fmt: skip
_PEFT = {
    "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "target_modules": None, "modules_to_save": None,
    "use_rslora": False, "use_dora": False, "init_lora_weights": True,
}  # fmt: skip


def _trainer(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"trainer.{name}": value for name, value in fields.items()}


_ADAPTER = {
    "peft": None,
    "merge_adapter": None,
    "quantization": None,
    "resize": False,
    **{f"peft.{name}": value for name, value in _PEFT.items()},
}
_DIVIDED = {"micro_batches": None}
_SHORTENED = {"max_length_limit": 2048}
_RENDERED = {"unsupported_fields": "drop"}
_CUT = {"cut_at_context": True}

STAGE_KINDS: dict[str, StageKind] = {
    "pool": StageKind(4, "deita_train.stages.intake.pool", validations=("deita_train.stages.intake.pool",)),
    "clean_pool": StageKind(
        1, "deita_train.stages.intake.clean_pool", validations=("deita_train.stages.intake.clean_pool",)
    ),
    "preferences": StageKind(
        3, "deita_train.stages.intake.preferences", validations=("deita_train.stages.intake.preferences",)
    ),
    "select_pairs": StageKind(
        1,
        "deita_train.stages.intake.select_pairs",
        logged=True,
        validations=("deita_train.stages.intake.select_pairs",),
    ),
    "scores_file": StageKind(
        2, "deita_train.stages.intake.scores_file", validations=("deita_train.stages.intake.scores_file",)
    ),
    "embeddings_file": StageKind(
        1, "deita_train.stages.intake.embeddings_file", validations=("deita_train.stages.intake.embeddings_file",)
    ),
    "base": StageKind(
        2,
        "deita_train.stages.training.base",
        validations=(_ROW_CHECK,),
        trains=True,
        makes_base=True,
        rows=ShownRows("text", "trained", "every token is trained but the first, which nothing precedes"),
        implied={**_CUT, **_DIVIDED, **_trainer(_SFT_TRAINER)},
    ),
    "train_scorer": StageKind(
        7,
        "deita_train.stages.training.train_scorer",
        trains=True,
        rows=ShownRows("labelled", "trained", "trained are the digit and the end of sequence"),
        describe=facts.of_scorer_training,
        validations=("deita_train.stages.intake.scorer_data", _MODEL_CHECK, _ROW_CHECK),
        implied={**_CODE, **_ADAPTER, **_CUT, **_DIVIDED, **_trainer(_SFT_TRAINER)},
    ),
    "score": StageKind(
        5,
        "deita_train.stages.inference.score",
        divides=True,
        validations=(_MODEL_CHECK, _ROW_CHECK),
        reuses="rows",
        rows=ShownRows(
            "scored_turns",
            "",
            "nothing is trained; a score is read from the six digits' logits after the last token",
        ),
        describe=facts.of_scores,
        implied={**_CODE, **_SHORTENED, "parity": False},
    ),
    "embed": StageKind(
        4,
        "deita_train.stages.inference.embed",
        divides=True,
        validations=(_ROW_CHECK,),
        reuses="rows",
        rows=ShownRows(
            "conversation",
            "",
            "nothing is trained; the embedding is read from the hidden states, of the last token or of all",
        ),
        describe=facts.of_embeddings,
        implied={**_CODE, **_SHORTENED, **_RENDERED, "storage": "float32", "pooling": "last_token"},
    ),
    "sentence_embed": StageKind(
        3,
        "deita_train.stages.inference.sentence_embed",
        divides=True,
        reuses="rows",
        describe=facts.of_embeddings,
        implied={**_CODE, "storage": "float32"},
    ),
    "perplexity": StageKind(
        3,
        "deita_train.stages.inference.perplexity",
        divides=True,
        validations=(_MODEL_CHECK, _ROW_CHECK),
        rows=ShownRows(
            "conversation",
            "measured",
            "nothing is trained; measured is the loss of the assistant's texts, here, and each alone after the first "
            "token",
        ),
        describe=facts.of_perplexities,
        implied={**_CODE, **_SHORTENED, **_RENDERED, "ifd": "perplexities"},
    ),
    "evolve": StageKind(
        1,
        "deita_train.stages.asking.evolve",
        asks_about_seeds=True,
        describe=facts.of_evolutions,
        validations=(_FORECAST,),
    ),
    "rank": StageKind(
        2,
        "deita_train.stages.asking.rank",
        warnings=facts.warnings_of_rankings,
        asks_about_seeds=True,
        describe=facts.of_rankings,
        validations=(_FORECAST,),
    ),
    "direct_score": StageKind(
        2, "deita_train.stages.asking.direct_score", validations=(_FORECAST,), describe=facts.of_direct_scores
    ),
    "instag": StageKind(2, "deita_train.stages.asking.instag", validations=(_FORECAST,), describe=facts.of_tags),
    "judge": StageKind(
        1,
        "deita_train.stages.evaluating.judge",
        logged=True,
        validations=("deita_train.stages.evaluating.judge_forecast",),
        describe=facts.of_judgements,
    ),
    "questions": StageKind(
        1,
        "deita_train.stages.evaluating.questions",
        describe=facts.of_questions,
        validations=("deita_train.stages.evaluating.questions",),
    ),
    "generate": StageKind(
        1,
        "deita_train.stages.evaluating.generate",
        rows=ShownRows(
            "question", "", "nothing is trained; the model answers each turn, a later one after its own earlier answers"
        ),
        describe=facts.of_answers,
        validations=("deita_train.stages.evaluating.answer_forecast", _MODEL_CHECK, _ROW_CHECK),
    ),
    "lengths": StageKind(
        2,
        "deita_train.stages.inference.lengths",
        validations=(_ROW_CHECK,),
        implied={**_CODE, **_RENDERED, "resize": False, "answer_tokens": False},
    ),
    "select": StageKind(
        3,
        "deita_train.stages.selecting.select",
        logged=True,
        reuses="walk",
        has_budget=True,
        validations=("deita_train.stages.selecting.column_check", "deita_train.stages.selecting.budget_check"),
        implied={"score_turns": "sum", "only_trained_turns": False, "whiten": None, **_CUT},
    ),
    "compare": StageKind(
        1,
        "deita_train.stages.selecting.compare",
        implied={"score_turns": "sum", "whiten": None, "seeded": None, "trained": None, "mean_of": None},
    ),
    "contamination": StageKind(1, "deita_train.stages.evaluating.contamination", describe=facts.of_contamination),
    "sft": StageKind(
        4,
        "deita_train.stages.training.sft",
        validations=(_MODEL_CHECK, _ROW_CHECK),
        trains=True,
        rows=ShownRows("conversation", "trained", "trained are the assistant's texts, each with its end of turn"),
        implied={
            **_CODE,
            **_ADAPTER,
            **_DIVIDED,
            **_trainer({**_SFT_TRAINER, "max_length": 2048}),
            **_RENDERED,
            **_CUT,
            "published_template": None,
            "loss": "per_token",
            "parity": False,
            "end_of_turn": False,
        },
    ),
    "log_probs": StageKind(
        5,
        "deita_train.stages.inference.log_probs",
        divides=True,
        validations=(_MODEL_CHECK, _ROW_CHECK),
        rows=ShownRows(
            "pair",
            "measured",
            "nothing is trained; measured is the log-probability of both answers, each with its end of turn",
        ),
        describe=facts.of_pairs,
        implied={**_CODE, **_RENDERED, **_CUT, "resize": False},
    ),
    "dpo": StageKind(
        4,
        "deita_train.stages.training.dpo",
        validations=(_MODEL_CHECK, _ROW_CHECK),
        trains=True,
        rows=ShownRows("pair", "trained", "trained are both answers, each with its end of turn"),
        implied={
            **_CODE,
            **_ADAPTER,
            **_DIVIDED,
            **_trainer(_DPO_TRAINER),
            **_RENDERED,
            **_CUT,
            "published_template": None,
            "end_of_turn": False,
            "pairs_template": None,
        },
    ),
    "evaluate": StageKind(
        5,
        "deita_train.stages.inference.evaluate",
        divides=True,
        validations=(_MODEL_CHECK, _ROW_CHECK),
        rows=ShownRows(
            "conversation",
            "measured",
            "nothing is trained; measured is the loss of the assistant's texts, each with its end of turn",
        ),
        describe=facts.of_heldout_rows,
        implied={**_CODE, **_RENDERED, **_CUT, "resize": False, "samples": 0, "sample_tokens": 128},
    ),
    "lm_eval": StageKind(
        1,
        "deita_train.stages.evaluating.lm_eval",
        validations=(_MODEL_CHECK, "deita_train.stages.evaluating.lm_eval"),
        describe=facts.of_tasks,
    ),
}


def stage_module(kind: str) -> ModuleType:
    """The module that carries out stages of that kind."""
    return import_module(STAGE_KINDS[kind].module)

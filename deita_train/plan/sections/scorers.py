"""Section `scorers:`, which trains scorers where the recipe says so and scores the pool."""

from typing import Any

from deita_train.plan.identity import stated_fields
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import PASS_MAX_LENGTH, Builder, Model
from deita_train.recipe.model_sections import ScorerTraining
from deita_train.recipe.scoring_sections import Scorer, Scorers
from deita_train.selection.settings import DIMENSIONS


def add_scorers(builder: Builder, scorers: Scorers) -> None:
    """Add each dimension's training, if any, and its pass over the pool."""
    for dimension in DIMENSIONS:
        scorer: Scorer | None = getattr(scorers, dimension)
        if scorer is not None:
            _add_scorer(builder, dimension, scorer)


def _add_scorer(builder: Builder, dimension: str, scorer: Scorer) -> None:
    where = f"scorers.{dimension}"
    if scorer.train is not None:
        model = Model({"model": _add_training(builder, dimension, scorer.train, f"{where}.train")}, {}, {})
        if builder.recipe.pool is None:
            return  # a recipe may end in the scorers that it trains
    else:
        assert scorer.model is not None
        model = builder.model(scorer.model, scorer.revision, where, adapters=True)
        builder.check_limits(model, where, ("max_length", scorer.max_length))
    pool = builder.pool(where)
    dtype, how = builder.of_pass(scorer, where)
    identity = {
        **model.identity,
        "dimension": dimension,
        "max_length": scorer.max_length,
        "max_length_limit": PASS_MAX_LENGTH,
        "parity": scorer.parity,
        **dtype,
    }
    runtime = {
        **model.location,
        **how,
        "max_unscored_share": scorer.max_unscored_share,
        "min_digit_mass": scorer.min_digit_mass,
        "reuse_rows": scorer.reuse_rows,
    }
    builder.add(Node(f"score.{dimension}", "score", identity, runtime, {"pool": pool, **model.parents}))


def _add_training(builder: Builder, dimension: str, train: ScorerTraining, where: str) -> Node:
    model = builder.trained_model(train.model, train.revision, where)
    stated = train.max_length if "max_length" in train.model_fields_set else None
    builder.check_limits(model, where, ("max_length", stated), resize=train.resize)
    seed = builder.recipe.seed
    parents = {**model.parents}
    data_location: dict[str, Any] = {}
    if train.data == "evolve":
        wanted = f"evolve.{dimension}: (the section says data: evolve)"
        parents["labels"] = builder.required(f"rank.{dimension}", where, wanted)
        data: dict[str, Any] = {"evolve": "train"}
    else:
        data, data_location = builder.inputs.source(train.data, default_seed=seed, where=f"{where}.data")
    heldout: dict[str, Any] | None = None
    heldout_location: dict[str, Any] | None = None
    if train.heldout is not None:
        # A generated held-out set must not repeat the training rows, so it has its own default seed.
        heldout, heldout_location = builder.inputs.source(
            train.heldout, default_seed=seed + 1, where=f"{where}.heldout"
        )
    elif "labels" in parents and parents["labels"].identity["heldout_share"] > 0:
        heldout, heldout_location = {"evolve": "heldout"}, {}
    identity = {
        **model.identity,
        "dimension": dimension,
        "data": data,
        "heldout": heldout,
        "max_length": train.max_length,
        "cut_at_context": stated is None,
        **builder.of_tuning(train, where),
    }
    runtime = {
        **model.location,
        "data": data_location,
        "heldout": heldout_location,
        **builder.training_runtime(train, where),
    }
    return builder.add(
        Node(f"train_scorer.{dimension}", "train_scorer", identity, runtime, parents, stated_fields(train))
    )

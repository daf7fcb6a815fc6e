"""Where a stage cuts its rows: one rule for every stage that gives rows to a model."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.models.model_limits import learned_positions
from deita_train.models.model_shape import context_length, load_config
from deita_train.stages.context import StageContext
from deita_train.stages.stage_model import model_path, trusts_code


@dataclass(frozen=True)
class Readable:
    """What a model's configuration says of its longest row, in tokens.

    Attributes:
        context: the rows that it was made for; None if it states nothing.
        positions: the positions that it has learned, beyond which it fails; None if it computes them.
    """

    context: int | None
    positions: int | None = None

    @classmethod
    def by(cls, model: Path, *, trust_code: bool = False) -> "Readable":
        """The same of a model's or an adapter's folder."""
        config = load_config(model, trust_code)
        return cls(context_length(config), learned_positions(config.to_dict()))


@dataclass(frozen=True)
class RowLimit:
    """Where rows are cut.

    Attributes:
        tokens: the most that the model is given of a row; None cuts nothing.
        context: of the model.
        positions: the most that the model can read at all; None for any number.
        note: what is to be said of it; None where rows are cut as the recipe says, within the context.
    """

    tokens: int | None
    context: int | None
    positions: int | None = None
    note: str | None = None

    def beyond_context(self, length: int) -> bool:
        """Whether a row of that length is longer than the model's context."""
        return self.context is not None and length > self.context


def row_limit(identity: Mapping[str, Any], readable: Readable) -> RowLimit:
    """Where a stage cuts the rows of a model.

    At the length that the recipe states. Without one, at the stage's default or at the model's context, whichever is
    shorter. In no case beyond the positions that a model has learned.
    """
    if identity.get("parity") and "max_length_limit" in identity:
        # Prompts beyond it are not scored.
        return RowLimit(readable.context or sys.maxsize, readable.context, readable.positions)
    if "max_new_tokens" in identity:
        # Questions are not cut: what leaves no room for an answer is not asked.
        return RowLimit(readable.context, readable.context, readable.positions)
    wanted, is_stated = _wanted(identity)
    bounds = {"the positions that the model has learned": readable.positions}
    if not is_stated:
        bounds["the model's context"] = readable.context
    name, bound = min(
        ((name, bound) for name, bound in bounds.items() if bound is not None),
        key=lambda named: named[1],
        default=("", None),
    )
    if bound is not None and (wanted is None or bound < wanted):
        return RowLimit(bound, readable.context, readable.positions, f"rows are cut at {bound:,} tokens, {name}")
    if readable.context is not None and (wanted is None or wanted > readable.context):
        length = "any length" if wanted is None else f"up to {wanted:,} tokens"
        note = f"rows of {length} are read, beyond the model's context of {readable.context:,}, as max_length states"
        return RowLimit(wanted, readable.context, readable.positions, note)
    return RowLimit(wanted, readable.context, readable.positions)


def _wanted(identity: Mapping[str, Any]) -> tuple[int | None, bool]:
    """The length at which the recipe wants rows cut (None for nowhere), and whether it states it or has a default."""
    of = identity if "max_length" in identity else identity["trainer"]
    stated: int | None = of["max_length"]
    if "max_length_limit" in identity and stated is None:
        limit: int = identity["max_length_limit"]
        return limit, False
    return stated, "max_length_limit" in identity or not identity.get("cut_at_context", True)


def stage_limit(context: StageContext, model: Path | None = None) -> RowLimit:
    """The limit of a stage that runs, by its model's folder or another one."""
    folder = model_path(context) if model is None else model
    return row_limit(context.identity, Readable.by(folder, trust_code=trusts_code(context.identity)))


def told_limit(context: StageContext) -> RowLimit:
    """The same, with its note written to the stage's log."""
    limit = stage_limit(context)
    if limit.note is not None:
        sys.stdout.write(f"{limit.note}\n")
    return limit

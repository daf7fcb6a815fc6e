"""Refuses a model whose architecture a stage cannot use rightly, before it is loaded."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.inference.architecture import try_architecture
from deita_train.models.model_shape import causal_problem, whole_config
from deita_train.stages.context import StageContext
from deita_train.stages.stage_model import model_path, trusts_code


def check_outside_model(context: StageContext) -> None:
    """The check below for a stage that starts from a model from outside the run; the log says what was not tried.

    Raises:
        UserError: as below.
    """
    if "model" not in context.identity:
        return
    section = str(context.runtime.get("section", context.label))
    untried = check_architecture(context.identity, context.runtime, model_path(context), section)
    if untried is not None:
        sys.stdout.write(f"{untried}\n")


def check_architecture(
    identity: Mapping[str, Any], runtime: Mapping[str, Any], folder: Path, section: str
) -> str | None:
    """Check by a tiny copy of a stage's model that its logits are as its configuration says, and that packing is safe.

    Args:
        identity: the stage's.
        runtime: the stage's.
        folder: with the model's config.json.
        section: the dotted path of the stage's section.

    Returns:
        A line on what could not be tried; None if everything was.

    Raises:
        UserError: it is no causal language model, it does something else to its logits, or packed conversations would
            see each other.
    """
    if trusts_code(identity):
        return None  # its code is executed where the model is loaded, and nowhere else
    config = whole_config(folder)
    problem = causal_problem(config)
    if problem is not None:
        raise UserError(f"{section}: {problem}")
    found = try_architecture(config)
    packing = bool(runtime.get("packing"))
    if found.untried is not None:
        if packing:
            raise UserError(
                f"{section}.packing: no tiny copy of {found.name} could be made to try whether packed conversations "
                f"see each other ({found.untried}); leave packing: out."
            )
        return f"{found.name} was not tried on a tiny copy ({found.untried}); its logits are checked once it is loaded"
    if found.logits_problem is not None:
        raise UserError(f"{section}: {found.logits_problem}")
    if packing and not found.separates_packed:
        raise UserError(
            f"{section}.packing: in {found.name} the conversations of a packed row see each other (tried on a tiny "
            "copy of it), so the model would learn other than without packing; leave packing: out."
        )
    return None


def is_untried(folder: Path) -> bool:
    """Whether no tiny copy could be made of the model of a folder."""
    return try_architecture(whole_config(folder)).untried is not None

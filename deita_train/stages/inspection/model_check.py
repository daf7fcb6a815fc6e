"""What is known of a stage's outside model before it is loaded, for `deita-train validate`."""

from collections.abc import Iterator

from deita_train.stages.architecture import check_architecture
from deita_train.stages.stage_model import tokenizer_path
from deita_train.stages.validation import StageToValidate


def validate(stage: StageToValidate) -> Iterator[str]:
    """A line on what could not be tried of the model's architecture. A model that the run makes is a LLaMA.

    Raises:
        UserError: the stage cannot use a model of this architecture, or not with packing.
    """
    if "model" not in stage.identity or "endpoint" in stage.runtime:
        return  # made by the run, or known to the server alone
    folder = tokenizer_path(stage.identity["model"], stage.runtime["model"], stage.label)
    section = str(stage.runtime.get("section", stage.label))
    untried = check_architecture(stage.identity, stage.runtime, folder, section)
    if untried is not None:
        yield f"{stage.label}: {untried}"

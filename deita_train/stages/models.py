"""Where a stage's model lies: in a parent artefact, in a local folder, or in the Hub's cache."""

from pathlib import Path

from deita_train.errors import UserError
from deita_train.stages.context import StageContext


def model_path(context: StageContext) -> Path:
    """A local folder with the stage's model; a Hub model is downloaded at the commit of the plan."""
    if "model" in context.parents:
        return context.parents["model"] / "model"
    identity = context.config["model"]
    if "hub" not in identity:
        return Path(context.settings["model"])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(identity["hub"], revision=identity["revision"], ignore_patterns=["*.bin", "*.pt"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{context.label}: {identity['hub']} at {identity['revision']} cannot be downloaded: {error}. "
            "Check the network, your access to it (huggingface-cli login), and the free disk space."
        ) from error

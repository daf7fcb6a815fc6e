"""Hub models as local folders."""

from pathlib import Path

from deita_train.errors import UserError

# Weights that are not safetensors are never downloaded.
NOT_SAFETENSORS = ["*.bin", "*.pt", "*.pth", "*.ckpt"]


def hub_folder(
    hub: str, revision: str, label: str, *, allow: list[str] | None = None, ignore: list[str] | None = None
) -> Path:
    """The local snapshot of a Hub model at a commit, downloaded if necessary.

    Args:
        hub: the model's id.
        revision: the commit.
        label: start of the error message.
        allow: patterns of file names to download; None for all.
        ignore: patterns of file names to skip.

    Raises:
        UserError: it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=allow, ignore_patterns=ignore))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{label}: {hub} at {revision} cannot be downloaded: {str(error).rstrip('.')}. "
            "Check the network, your access to it (hf auth login), and the free disk space."
        ) from error

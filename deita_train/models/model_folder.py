"""Checks that a user's folder holds a loadable model, before anything is computed."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from deita_train.errors import UserError, raise_machine_fault
from deita_train.models.remote_code import own_code

_AGAIN = "download or copy the model again"


def check_model_folder(folder: Path, trust_code: bool = False) -> None:
    """Check the configuration and the headers of the weights, without loading any weight.

    Raises:
        UserError: a file is missing, truncated, or unknown to the installed transformers, or the model needs its own
            Python code and `trust_code` is false.
    """
    try:
        with own_code(folder, trust_code):
            AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_code)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise_machine_fault(error, folder)
        reason = str(error).strip().splitlines()[0].rstrip(".: ")
        raise UserError(
            f"{folder / 'config.json'}: transformers cannot read it ({reason}); choose another model, or {_AGAIN}."
        ) from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not list(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{folder} holds no weights (model.safetensors); {_AGAIN}.")
    for file in weights:
        _check_header(file)


def _check_header(file: Path) -> None:
    try:
        with safe_open(file, framework="np"):
            pass
    except SafetensorError as error:
        raise_machine_fault(error, file)
        # `git clone` without git-lfs leaves a three-line text file.
        raise UserError(
            f"{file} is not a complete safetensors file ({error}); {_AGAIN}, from git with git-lfs."
        ) from error

"""Adapter folders: what they hold, and which base model they belong to. Imports nothing heavy."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.errors import UserError, raise_machine_fault
from deita_train.store.atomic_io import write_text_atomically

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_NAME = "base_model_name_or_path"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class AdapterBase:
    """An adapter's base model: a local `folder`, else a Hub model at a commit."""

    folder: Path | None = None
    hub: str = ""
    revision: str = ""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a full model; transformers checks the same file."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_adapter(folder: Path) -> dict[str, Any]:
    """The adapter's configuration.

    Raises:
        UserError: the adapter is broken, does not name its base, is not in safetensors, is not LoRA, or acts on only
            some of the tokens.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise_machine_fault(error, path)
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not an adapter configuration: it holds {type(config).__name__}, not a mapping.")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters are read.")
    if config.get("alora_invocation_tokens"):
        raise UserError(
            f"{path}: alora_invocation_tokens is set; adapters that act on only some tokens are not supported."
        )
    if not config.get(BASE_NAME):
        raise UserError(f"{path}: {BASE_NAME} is missing; write the folder or the Hub id of the adapter's base there.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}; adapters are read from safetensors only.")
    return config


def locate_base(folder: Path) -> AdapterBase:
    """The base of an adapter.

    If the store was moved, the base is found beside the adapter's own artefact, under its artefact's name.

    Raises:
        UserError: the base does not exist, or a Hub base has no commit.
    """
    config = read_adapter(folder)
    stated = Path(config[BASE_NAME])
    if stated.is_dir():
        return AdapterBase(_whole(stated.resolve(), folder))
    beside = folder.resolve().parent.parent / stated.parent.name / stated.name
    if stated.is_absolute() and beside.is_dir():
        return AdapterBase(_whole(beside, folder))
    if stated.is_absolute() or config[BASE_NAME].startswith("."):
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: the adapter's base {stated} does not exist, and neither does {beside}. "
            f"Put it back, or write where it is now as {BASE_NAME}."
        )
    revision = config.get("revision") or ""
    if not _COMMIT.fullmatch(revision):
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: revision is {config.get('revision')!r}; write the commit (40 digits) of the "
            f"base {config[BASE_NAME]} on the Hub there, so that the adapter always finds the same base."
        )
    return AdapterBase(hub=config[BASE_NAME], revision=revision)


def name_base(folder: Path, base: str, revision: str | None) -> None:
    """Record an adapter's base; peft's sets are sorted so that equal adapters are equal files."""
    path = folder / ADAPTER_CONFIG
    config = _in_order(json.loads(path.read_text(encoding="utf-8")))
    config |= {BASE_NAME: base, "revision": revision}
    write_text_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def placeless_text(path: Path) -> str:
    """The text of an adapter's configuration without the base's location, which changes when a store is moved."""
    config = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({name: value for name, value in config.items() if name != BASE_NAME}, sort_keys=True)


def _whole(base: Path, adapter: Path) -> Path:
    if is_adapter(base) or not (base / "config.json").is_file():
        raise UserError(f"{adapter / ADAPTER_CONFIG}: the base {base} is not a full transformers model.")
    return base


# peft keeps these as sets, whose order differs between processes.
_SETS = ("target_modules", "exclude_modules")


def _in_order(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: sorted(value) if name in _SETS and isinstance(value, list) else value for name, value in config.items()
    }

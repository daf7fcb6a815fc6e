"""A model's own chat template, read from its files without loading its tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.node import UNRESOLVED


class TemplateAway(UserError):
    """A template's file is on the Hub, and neither in the local cache nor available."""


# Where transformers looks, the first that has one.
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"


def own_template(identity: Mapping[str, Any], location: str) -> str | None:
    """The default chat template of a model folder, or of a Hub model at its commit; None when it has none.

    Of a Hub model the two small files are read from the local cache, and fetched into it where they are not there yet.

    Raises:
        TemplateAway: when a file is neither in the cache nor available.
        UserError: when a file is damaged.
    """
    if identity.get("revision") == UNRESOLVED:
        raise TemplateAway(f"the commit of {identity['hub']} is not known")
    if "hub" in identity:
        files = {name: _hub_file(identity["hub"], identity["revision"], name) for name in _FILES}
    else:
        files = {name: Path(location) / name for name in _FILES}
    template, config = (file if file is not None and file.is_file() else None for file in files.values())
    if template is not None:
        return _text(template) or None
    return _configured(config) if config is not None else None


_FILES = (TEMPLATE_FILE, TOKENIZER_CONFIG)


def _configured(file: Path) -> str | None:
    try:
        stated = json.loads(_text(file)).get("chat_template")
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}. Copy or download the model again.") from None
    if isinstance(stated, list):  # several by name
        stated = {one["name"]: one["template"] for one in stated}.get("default")
    return stated or None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: {error.reason}. Copy or download the model again.") from None


def _hub_file(hub: str, commit: str, name: str) -> Path | None:
    """A file of the Hub in the local cache; None when that commit has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(hub, name, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    if cached is not None:  # the Hub has said before that there is none
        return None
    try:
        return Path(hf_hub_download(hub, name, revision=commit))
    except LocalEntryNotFoundError as error:  # no network; it is also an EntryNotFoundError
        if name == TEMPLATE_FILE and isinstance(try_to_load_from_cache(hub, TOKENIZER_CONFIG, revision=commit), str):
            return None  # the model was downloaded, and had no such file
        raise _unreachable(hub, commit, name, error) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise _unreachable(hub, commit, name, error) from error


def _unreachable(hub: str, commit: str, name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return TemplateAway(
        f"{name} of {hub} at {commit} is not in the local cache and cannot be downloaded ({reason}). Check the network "
        "and your access to it (hf auth login), or name a template"
    )

"""Prepared token ids that several passes of one run share, because the same tokenizer and template write the same rows.

What one pass prepared is left beside the work folders under a key of everything that the ids depend on, and a pass with
the same key links it into its own folder. Files are never changed once they are written, appear by one rename, and a
link stays when the run removes the folder, so neither a kill nor another run of the same store does harm: at worst rows
are encoded again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from deita_train.stages.context import StageContext
from deita_train.store.atomic_io import fsync_tree, read_json, remove_tree, write_json_atomically
from deita_train.store.keys import canonical_json

_FACTS = "facts.json"
# Rises when the code writes other ids, or other facts, for the same rows.
_FORM = 1
_LIBRARIES = ("transformers", "tokenizers", "jinja2")
# Of a tokenizer's settings, where it was loaded from.
_PLACES = ("name_or_path", "vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file", "chat_template")


def shared_rows(
    context: StageContext,
    tokenizer: PreTrainedTokenizerBase,
    about: Mapping[str, Any],
    files: Sequence[str],
    write: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Files among the prepared data, linked from another pass of the run that wrote the same, else written now.

    Args:
        context: of the pass.
        tokenizer: that encodes the rows, with its chat template.
        about: what the files depend on besides the table and the tokenizer.
        files: their names.
        write: writes them, and returns facts that are JSON.

    Returns:
        The facts.
    """
    described = _described(tokenizer)
    if context.shared_dir is None or described is None:
        return write()
    tables = {
        name: read_json(context.parents[name] / "manifest.json")["content_digest"]
        for name in ("pool", "data")
        if name in context.parents
    }
    wanted = {"form": _FORM, "about": dict(about), "tables": tables, "tokenizer": described}
    folder = context.shared_dir / hashlib.sha256(canonical_json(wanted).encode()).hexdigest()[:24]
    facts = _linked(folder, context.prepared_dir, files)
    if facts is None:
        facts = write()
        with suppress(OSError):  # such as a file system without links
            _leave(folder, context.prepared_dir, files, facts)
    return facts


def _described(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """All that decides what a tokenizer makes of a text; None for one that Python code may change."""
    if not tokenizer.is_fast or not type(tokenizer).__module__.startswith("transformers."):
        return None
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _PLACES}
    return {
        "class": type(tokenizer).__name__,
        "state": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "settings": json.dumps(settings, sort_keys=True, default=str),
        "special": json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str),
        "template": tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _linked(folder: Path, prepared: Path, files: Sequence[str]) -> dict[str, Any] | None:
    """The facts, with the files linked; None where nobody left them, or a run just removed them."""
    try:
        facts: dict[str, Any] = read_json(folder / _FACTS)
        for name in files:
            (prepared / name).unlink(missing_ok=True)
            os.link(folder / name, prepared / name)
    except OSError:
        return None
    return facts


def _leave(folder: Path, prepared: Path, files: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Leave the files for other passes."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    remove_tree(temporary)
    temporary.mkdir(parents=True)
    try:
        for name in files:
            os.link(prepared / name, temporary / name)
        write_json_atomically(temporary / _FACTS, dict(facts))
        fsync_tree(temporary)
        temporary.rename(folder)
    finally:
        remove_tree(temporary)

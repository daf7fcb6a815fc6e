"""What a stage prepares once, on rank 0, before the ranks begin."""

import time
from typing import Any

from deita_train.stages.context import StageContext
from deita_train.store.artefacts import MANIFEST
from deita_train.store.atomic_io import fsync_tree, read_json, remove_tree, write_text_atomically
from deita_train.store.keys import canonical_json

# The settings that a pass's prepared batches depend on.
_PLANNED_FOR = ("max_batch_tokens", "reuse_rows")
_PREPARED = "complete"


def prepare(module: Any, context: StageContext) -> None:
    """Prepare once, on rank 0; what an earlier attempt prepared serves again, unless what it depends on changed."""
    wanted = _made_for(context)
    if _is_prepared(context, wanted):
        return
    remove_tree(context.prepared_dir)
    for belonging in ("shards", "checkpoints"):  # to the old plan's batches, to the old rows
        remove_tree(context.work_dir / belonging)
    context.prepared_dir.mkdir(parents=True)
    if hasattr(module, "prepare"):
        module.prepare(context)
    fsync_tree(context.prepared_dir)
    write_text_atomically(context.prepared_dir / _PREPARED, wanted)


def wait_for_preparation(context: StageContext) -> None:
    """Return when rank 0 has prepared what this stage wants now."""
    # No process group exists yet, so no collective's time-out can end a long preparation.
    wanted = _made_for(context)
    while not _is_prepared(context, wanted):
        time.sleep(0.2)


def _is_prepared(context: StageContext, wanted: str) -> bool:
    """Whether what lies there was prepared for this; rank 0 may be removing what another attempt left."""
    try:
        return (context.prepared_dir / _PREPARED).read_text() == wanted
    except OSError:
        return False


def _made_for(context: StageContext) -> str:
    """The settings, and what the parents hold: `--fresh` can give one other content under the same key."""
    read = {name: read_json(folder / MANIFEST)["content_digest"] for name, folder in context.parents.items()}
    return canonical_json({**{name: context.settings.get(name) for name in _PLANNED_FOR}, "read": read})

"""What a stage prepares once, on rank 0, before the ranks begin."""

import time
from dataclasses import replace
from typing import Any

from deita_train.stages.context import StageContext
from deita_train.store.artefacts import MANIFEST
from deita_train.store.atomic_io import fsync_tree, read_json, remove_tree, write_text_atomically
from deita_train.store.keys import canonical_json
from deita_train.store.parts import PARTS

# The settings that the prepared batches of an inference stage depend on.
_PLANNED_FOR = ("max_batch_tokens", "reuse_rows")
_PREPARED = "complete"
# Rises when prepared data is written otherwise, so that an attempt of an earlier version is prepared anew.
_FORM = 2


def prepare(module: Any, context: StageContext) -> float:
    """Prepare on rank 0; keeps what an earlier attempt prepared, unless something that it depends on changed.

    Returns:
        How many seconds it took.
    """
    if is_prepared(context):
        return 0.0
    started = time.monotonic()
    remove_tree(context.prepared_dir)
    for outdated in ("shards", "checkpoints", PARTS):  # of the old batches, of the old rows
        remove_tree(context.work_dir / outdated)
    context.prepared_dir.mkdir(parents=True)
    if hasattr(module, "prepare"):
        module.prepare(replace(context, progress=context.progress.of_step("preparing")))
    fsync_tree(context.prepared_dir)
    write_text_atomically(context.prepared_dir / _PREPARED, _made_for(context))
    context.progress.of_step("loading").update(0, 0, "")
    return time.monotonic() - started


def is_prepared(context: StageContext) -> bool:
    """Whether a stage is prepared with its present settings, from its parents' present content."""
    return _is_prepared(context, _made_for(context))


def wait_for_preparation(context: StageContext) -> None:
    """Wait until rank 0 has prepared this stage."""
    # No process group exists yet, so no collective's time-out can end a long preparation.
    wanted = _made_for(context)
    while not _is_prepared(context, wanted):
        time.sleep(0.2)


def _is_prepared(context: StageContext, wanted: str) -> bool:
    """Whether the folder was prepared for this; rank 0 may be removing what another attempt left."""
    try:
        return (context.prepared_dir / _PREPARED).read_text() == wanted
    except OSError:
        return False


def _made_for(context: StageContext) -> str:
    """The settings and the parents' content, which `--fresh` can change under the same key."""
    read = {name: read_json(folder / MANIFEST)["content_digest"] for name, folder in context.parents.items()}
    return canonical_json({"form": _FORM, **{name: context.runtime.get(name) for name in _PLANNED_FOR}, "read": read})

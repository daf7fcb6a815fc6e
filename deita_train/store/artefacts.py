"""The store: one folder per artefact, named by its key, published by one rename with the manifest inside.

runs/store/<kind>-<key12>/         published: complete, never changed
runs/store/.work/<kind>-<key12>/   being built: checkpoints, shards and logs of this and earlier attempts
runs/store/.locks/                 which run is building what
runs/store/.prepared/              rows that several passes of a run prepare alike, until it ends
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deita_train.errors import UserError, raise_machine_fault
from deita_train.store.atomic_io import (
    allow_reading,
    fsync_folder,
    fsync_tree,
    read_json,
    remove_tree,
    write_json_atomically,
)
from deita_train.store.file_digests import FILE_DIGESTS, file_digests

MANIFEST = "manifest.json"
METRICS = "metrics.json"
# What a published artefact consists of; everything else in the work folder only served to build it.
PUBLISHED = (MANIFEST, METRICS, FILE_DIGESTS, "data", "trace", "model", "files", "logs")


@dataclass(frozen=True)
class Manifest:
    """What an artefact is, what it was built from and how; written last.

    `counts_as` has the keys that counted in place of some parents' own, by role: those of stages from whose result the
    same content follows.
    """

    id: str
    key: str
    kind: str
    label: str
    config: dict[str, Any]
    parents: dict[str, str]
    parent_digests: dict[str, str]
    rows_in: int
    rows_out: int
    drops: dict[str, int]
    content_digest: str
    seed: int | None
    versions: dict[str, str]
    device: str
    world_size: int
    distributed_type: str
    threads: int
    command: str
    started: str
    wall_seconds: float
    counts_as: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """What decided the content, every default included; `config` in the file."""
        return self.config


class Store:
    """Published artefacts and the folders in which new ones are built."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, artefact_id: str) -> Path:
        """The folder of the artefact once it is published."""
        return self.folder / artefact_id

    def work_path(self, artefact_id: str) -> Path:
        """The folder in which the artefact is built."""
        return self.folder / ".work" / artefact_id

    @property
    def shared_dir(self) -> Path:
        """The folder in which passes leave prepared rows for one another."""
        return self.folder / ".prepared"

    def remove_shared(self) -> None:
        """Remove it; a pass that reads there now prepares its rows itself."""
        shutil.rmtree(self.shared_dir, ignore_errors=True)

    def lock_path(self, artefact_id: str) -> Path:
        """The lock of the run that builds the artefact."""
        return self.folder / ".locks" / f"{artefact_id}.lock"

    def workers_lock_path(self, artefact_id: str) -> Path:
        """The lock that all processes of the artefact's stage share."""
        return self.folder / ".locks" / f"{artefact_id}.workers"

    def has(self, artefact_id: str) -> bool:
        """Whether the artefact is published; a folder without a manifest is not."""
        return (self.path(artefact_id) / MANIFEST).is_file()

    def published(self) -> list[str]:
        """The ids of all published artefacts."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{MANIFEST}"))

    def manifest(self, artefact_id: str) -> Manifest:
        """The manifest of a published artefact.

        Raises:
            UserError: it was damaged from outside.
        """
        path = self.path(artefact_id) / MANIFEST
        try:
            return Manifest(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise_machine_fault(error, path)
            raise UserError(f"{path} is damaged ({error}); remove {path.parent} and run again.") from error

    def metrics(self, artefact_id: str) -> dict[str, Any]:
        """The metrics of a published artefact."""
        metrics: dict[str, Any] = read_json(self.path(artefact_id) / METRICS)
        return metrics

    def publish(self, manifest: Manifest, metrics: dict[str, Any]) -> Path:
        """Turn a finished work folder into the artefact: metrics, digests, manifest last, fsync, one rename.

        An artefact that `--fresh` rebuilds stays until the new one is complete, and is then replaced.
        """
        work, final = self.work_path(manifest.id), self.path(manifest.id)
        write_json_atomically(work / METRICS, metrics)
        for name in ("data", "trace", "model", "files"):
            if (work / name).exists():
                allow_reading(work / name, like=work / METRICS)
                fsync_tree(work / name)
        write_json_atomically(work / FILE_DIGESTS, file_digests(work))
        write_json_atomically(work / MANIFEST, asdict(manifest))
        self.finish_publishing(manifest.id)
        return final

    def finish_publishing(self, artefact_id: str) -> bool:
        """Publish a work folder that has its manifest; False when there is none.

        A kill between the manifest and the rename leaves such a folder.
        """
        work, final = self.work_path(artefact_id), self.path(artefact_id)
        if not (work / MANIFEST).exists():
            return False
        for entry in work.iterdir():
            if entry.name not in PUBLISHED:
                remove_tree(entry) if entry.is_dir() else entry.unlink()
        replaced = self.folder / ".work" / f"{artefact_id}.replaced"
        remove_tree(replaced)
        if final.exists():
            final.rename(replaced)
        work.rename(final)
        fsync_folder(self.folder)
        remove_tree(replaced)
        return True

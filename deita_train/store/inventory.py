"""What lies in a store: artefacts and who uses them, unfinished stages, and what was being removed."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deita_train.store.artefacts import Manifest, Store
from deita_train.store.atomic_io import read_json
from deita_train.store.locks import is_held
from deita_train.store.model_links import artefact_of, links_of
from deita_train.store.run_record import STAGES, RunRecord

_ADAPTER_CONFIG = "adapter_config.json"
# What finish_publishing sets aside for a moment.
_REPLACED = ".replaced"


@dataclass(frozen=True)
class StoredArtefact:
    """A published artefact.

    Attributes:
        label: of the stage that made it.
        started: when the stage did, local time.
        size: bytes of its files.
        runs: the runs that name it, or lead to its model.
        read_by: artefacts in use that were made from it and whose runs do not name it.
        held: whether a process has its lock, such as to build it anew.
    """

    id: str
    label: str
    started: str
    size: int
    runs: tuple[str, ...]
    read_by: tuple[str, ...]
    held: bool

    @property
    def used(self) -> bool:
        """Whether something would miss it."""
        return bool(self.runs or self.read_by or self.held)


@dataclass(frozen=True)
class Unfinished:
    """The work folder of a stage that is not published.

    Attributes:
        id: of the artefact.
        name: of the folder; another one where it holds what was being replaced.
        size: bytes of its files.
        idle_seconds: since something in it was written.
        runs: the runs that name the artefact.
        held: whether a process is working on it.
    """

    id: str
    name: str
    size: int
    idle_seconds: float
    runs: tuple[str, ...]
    held: bool


@dataclass(frozen=True)
class Inventory:
    """All that lies in a store; sorted by name."""

    artefacts: tuple[StoredArtefact, ...]
    unfinished: tuple[Unfinished, ...]


def take_inventory(store: Store, runs_dir: Path) -> Inventory:
    """Look at every artefact, its manifest, and the records of all runs.

    Raises:
        UserError: a manifest or the record of a run is damaged, so that nobody can say what is used.
    """
    manifests = {name: store.manifest(name) for name in store.published()}
    named = _named_by_runs(runs_dir)
    readers = _readers({name: _made_from(store, manifest) for name, manifest in manifests.items()}, named)
    artefacts = tuple(
        StoredArtefact(
            name,
            manifest.label,
            manifest.started,
            folder_size(store.path(name)),
            tuple(sorted(named.get(name, ()))),
            tuple(sorted(readers.get(name, ()))) if name not in named else (),
            _is_held(store, name),
        )
        for name, manifest in manifests.items()
    )
    return Inventory(artefacts, tuple(_unfinished(store, named)))


def run_folders(runs_dir: Path) -> list[Path]:
    """The folders of all runs that have a record: of recipes, and of single commands."""
    return sorted(path.parent for pattern in (f"*/{STAGES}", f"*/*/{STAGES}") for path in runs_dir.glob(pattern))


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and below it; what vanishes meanwhile counts as nothing."""
    return sum(stat.st_size for stat in _stats(folder))


def _named_by_runs(runs_dir: Path) -> dict[str, set[str]]:
    """Artefact -> the runs that name it in their records, or whose links lead to its model."""
    named: dict[str, set[str]] = {}
    for folder in run_folders(runs_dir):
        record = RunRecord.read(folder)
        of_cells = {artefact for cell in record.cells for artefact in cell.stages.values()}
        linked = {artefact_of(link) for link in links_of(folder)}
        for artefact in {*record.nodes, *of_cells, *linked}:
            named.setdefault(artefact, set()).add(folder.relative_to(runs_dir).as_posix())
    return named


def _readers(made_from: Mapping[str, set[str]], named: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Artefact -> the artefacts in use that were made from it, directly."""
    readers: dict[str, set[str]] = {}
    pending = [name for name in made_from if name in named]
    seen = set(pending)
    while pending:
        name = pending.pop()
        for parent in made_from[name]:
            readers.setdefault(parent, set()).add(name)
            if parent in made_from and parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return readers


def _made_from(store: Store, manifest: Manifest) -> set[str]:
    """The artefacts that one needs: its parents, and the base that an adapter names, if it is in this store."""
    needed = set(manifest.parents.values())
    adapter = store.path(manifest.id) / "model" / _ADAPTER_CONFIG
    if adapter.is_file():
        base = Path(str(read_json(adapter).get("base_model_name_or_path")))
        if base.name == "model" and store.has(base.parent.name):
            needed.add(base.parent.name)
    return needed


def _unfinished(store: Store, named: Mapping[str, set[str]]) -> Iterator[Unfinished]:
    now = time.time()
    for folder in sorted((store.folder / ".work").glob("*")):
        artefact = folder.name.removesuffix(_REPLACED)
        newest = max((stat.st_mtime for stat in _stats(folder)), default=folder.stat().st_mtime)
        runs = tuple(sorted(named.get(artefact, ())))
        idle = max(0.0, now - newest)
        yield Unfinished(artefact, folder.name, folder_size(folder), idle, runs, _is_held(store, artefact))


def _is_held(store: Store, artefact: str) -> bool:
    return any(is_held(lock) for lock in (store.lock_path(artefact), store.workers_lock_path(artefact)))


def _stats(folder: Path) -> Iterator[os.stat_result]:
    for here, _, files in os.walk(folder):
        for name in files:
            try:
                yield (Path(here) / name).lstat()
            except FileNotFoundError:
                continue

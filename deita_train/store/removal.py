"""Removing from a store what nothing uses.

A folder is first renamed into `.removed/`, then deleted there: a kill at any moment leaves an artefact whole, or none.
"""

from dataclasses import dataclass
from pathlib import Path

from deita_train.errors import UserError
from deita_train.store.artefacts import Store
from deita_train.store.atomic_io import fsync_folder, remove_tree
from deita_train.store.inventory import Inventory, StoredArtefact, Unfinished, take_inventory
from deita_train.store.locks import hold_if_free

_REMOVED = ".removed"


@dataclass(frozen=True)
class Removal:
    """What can be removed.

    Attributes:
        artefacts: published ones that nothing uses.
        unfinished: work folders, where they were asked for.
    """

    artefacts: tuple[StoredArtefact, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(artefact.size for artefact in self.artefacts) + sum(work.size for work in self.unfinished)


def removable(inventory: Inventory, work_idle_seconds: float | None = None) -> Removal:
    """What may be removed: never what a process holds.

    Args:
        inventory: of the store.
        work_idle_seconds: work folders too, if nothing was written in them for as long; None leaves all of them.

    Raises:
        UserError: a stage is being made that no run names, so that nobody can say what it reads.
    """
    unknown = [work.id for work in inventory.unfinished if work.held and not work.runs]
    unknown += [artefact.id for artefact in inventory.artefacts if artefact.held and not artefact.runs]
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: being made, and no run names it, so what it reads is unknown. Wait until it ends."
        )
    unfinished = tuple(
        work
        for work in inventory.unfinished
        if work_idle_seconds is not None and not work.held and work.idle_seconds >= work_idle_seconds
    )
    return Removal(tuple(artefact for artefact in inventory.artefacts if not artefact.used), unfinished)


def remove(store: Store, runs_dir: Path, chosen: Removal) -> list[str]:
    """Remove what was chosen, unless it came into use or is held by now.

    Returns:
        The names of what was removed.
    """
    delete_leftovers(store)
    still = {artefact.id for artefact in take_inventory(store, runs_dir).artefacts if not artefact.used}
    removed = []
    for artefact in chosen.artefacts:
        if artefact.id in still and _set_aside(store, artefact.id, store.path(artefact.id)):
            removed.append(artefact.id)
            delete_leftovers(store)
    for work in chosen.unfinished:
        if _set_aside(store, work.id, store.folder / ".work" / work.name):
            removed.append(f".work/{work.name}")
            delete_leftovers(store)
    return removed


def delete_leftovers(store: Store) -> None:
    """Delete what was set aside, now or by a removal that was killed."""
    remove_tree(store.folder / _REMOVED)


def _set_aside(store: Store, artefact_id: str, folder: Path) -> bool:
    """Take a folder out of the store by one rename, unless a process holds it or it is gone."""
    with hold_if_free(store.lock_path(artefact_id), store.workers_lock_path(artefact_id)) as is_free:
        if not is_free or not folder.exists():
            return False
        target = store.folder / _REMOVED / folder.name
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        fsync_folder(folder.parent)
    return True

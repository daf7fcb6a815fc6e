"""The locks of a stage's parts: several parts at once, no run beside them, and each part only once.

A part holds three, in this order:

- its own, `<artefact>.part-3-of-64.lock`, from its start to its end;
- `<artefact>.prepare.lock` while it looks whether the stage is prepared, and prepares it if not;
- the artefact's own lock, shared with the other parts, while it computes. A run needs that one alone, and so does the
  part that prepares, and the last one, which joins. A part that is started meanwhile waits for these two, and is
  refused by a run.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deita_train.store.artefacts import Store
from deita_train.store.locks import BeingMade, hold, holder_of, is_held_by_part, own_name, try_lock, wait_for_workers
from deita_train.store.parts import PartName


@contextmanager
def hold_part(
    store: Store, artefact_id: str, part: PartName, label: str, on_wait: Callable[[str], None]
) -> Iterator[None]:
    """Hold one part, which two processes must not do at once; waits for the other one, of which `on_wait` is told.

    A file system of a network may take a minute or two to release the locks of a machine that died.
    """
    lock = store.folder / ".locks" / f"{artefact_id}.part-{part.file_name}.lock"
    with hold(lock, None, f"{label}: part {part}", on_wait):
        yield


def preparation_lock(store: Store, artefact_id: str) -> Path:
    """The lock under which a part looks whether its stage is prepared."""
    return store.folder / ".locks" / f"{artefact_id}.prepare.lock"


class ArtefactLock:
    """An artefact's lock in the hands of one of its parts."""

    def __init__(self, store: Store, artefact_id: str, label: str) -> None:
        self._path = store.lock_path(artefact_id)
        self._workers = store.workers_lock_path(artefact_id)
        self._label = label
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+", encoding="utf-8")

    def close(self) -> None:
        """Release it."""
        self._file.close()

    def release(self) -> None:
        """Hold it no longer."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def take_alone(self) -> bool:
        """Hold the lock alone, once the processes of a dead run have ended; False if a run or another part holds it.

        Of several parts that stop sharing it for this at the same time, one gets it.
        """
        # Released first: two parts that both still shared it would keep each other from it.
        self.release()
        if not try_lock(self._file, fcntl.LOCK_EX):
            return False
        self._sign()
        wait_for_workers(self._workers, self._label)
        return True

    def share(self) -> bool:
        """Hold the lock together with other parts; False if a part holds it alone, which prepares or joins.

        Raises:
            BeingMade: a run holds it.
        """
        self.release()
        if not try_lock(self._file, fcntl.LOCK_SH):
            if is_held_by_part(self._path):
                return False
            raise BeingMade(
                f"{self._label} is being made by {holder_of(self._path)}. Wait for it, or stop it, then run again."
            )
        self._sign()
        return True

    def _sign(self) -> None:
        """Name this process as a holder: the last of several parts is the one that a run hears of."""
        self._file.truncate(0)
        self._file.write(own_name(part=True))
        self._file.flush()

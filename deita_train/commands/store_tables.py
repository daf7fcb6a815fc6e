"""The tables and sentences of `deita-train store`."""

from collections.abc import Sequence

from deita_train.number_text import decimals, duration, plural
from deita_train.store.inventory import Inventory, StoredArtefact, Unfinished
from deita_train.store.removal import Removal
from deita_train.table import Column, Table, numbers, words

_MOST_RUNS = 3


def bytes_text(size: int) -> str:
    """`12 B`, `1.5 kB`, `26.0 GB`; thousands, as file managers and disks count."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{decimals(value, 0 if unit == 'B' else 1)} {unit}"


def artefact_table(artefacts: Sequence[StoredArtefact], title: str) -> Table:
    """One row per artefact."""
    rows = tuple(
        (artefact.id, artefact.label, bytes_text(artefact.size), _to_the_minute(artefact.started), _used_by(artefact))
        for artefact in artefacts
    )
    return Table((*words("artefact", "stage"), *numbers("size"), *words("started", "used by")), rows, title)


def unfinished_table(unfinished: Sequence[Unfinished]) -> Table:
    """One row per work folder."""
    rows = tuple(
        (
            f".work/{work.name}",
            bytes_text(work.size),
            "now" if work.held else f"{_age(work.idle_seconds)} ago",
            "being made" if work.held else _runs(work.runs) or "no run",
        )
        for work in unfinished
    )
    columns: tuple[Column, ...] = (*words("unfinished"), *numbers("size"), *words("last written", "of"))
    return Table(columns, rows, "unfinished stages")


def total_line(inventory: Inventory) -> str:
    """What a store holds in all, and what of it nothing uses."""
    unused = [artefact for artefact in inventory.artefacts if not artefact.used]
    size = sum(artefact.size for artefact in inventory.artefacts)
    line = f"{plural(len(inventory.artefacts), 'artefact')}, {bytes_text(size)}"
    if inventory.unfinished:
        of_work = sum(work.size for work in inventory.unfinished)
        line += f"; {plural(len(inventory.unfinished), 'work folder')}, {bytes_text(of_work)}"
    if not unused:
        return f"{line}. All are in use."
    of_unused = bytes_text(sum(artefact.size for artefact in unused))
    return f"{line}. Nothing uses {len(unused)} ({of_unused}): `deita-train store gc` shows them."


def removal_line(chosen: Removal, removed: Sequence[str] | None) -> str:
    """What was removed, or would be; `removed` is None where nothing was to be removed."""
    number = len(chosen.artefacts) + len(chosen.unfinished)
    if not number:
        return "Nothing to remove: every artefact is in use."
    if removed is None:
        return f"Nothing was removed. --yes removes {plural(number, 'folder')} and frees {bytes_text(chosen.size)}."
    kept = number - len(removed)
    more = f" {plural(kept, 'folder')} came into use meanwhile and stayed." if kept else ""
    return f"Removed {plural(len(removed), 'folder')}.{more}"


def _to_the_minute(moment: str) -> str:
    return moment.rpartition(":")[0]


def _used_by(artefact: StoredArtefact) -> str:
    if artefact.held:
        return "being made anew"
    if artefact.runs:
        return _runs(artefact.runs)
    return f"read by {_runs(artefact.read_by)}" if artefact.read_by else "nothing"


def _runs(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_RUNS} more" if len(names) > _MOST_RUNS else ""
    return f"{', '.join(names[:_MOST_RUNS])}{more}"


def _age(seconds: float) -> str:
    days = int(seconds // 86400)
    return plural(days, "day") if days else duration(seconds)

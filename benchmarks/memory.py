"""The memory of a process and of those that it started, as the benchmarks measure it."""

from pathlib import Path


def own_memory(pid: int) -> int:
    """The memory of a process tree that no file holds, in bytes; pages that several share count once.

    Proportional shares (PSS, in /proc/PID/smaps_rollup) without mapped files, whose pages the system takes back when it
    needs them.
    """
    return sum(map(_share, _tree(pid)))


def _tree(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = [
            one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))

"""The report as a child process: figures need libraries that the run itself never imports."""

from pathlib import Path

from deita_train.run.child.logs import run_logged


def forked_report(run_dir: str, store_dir: str, log: str) -> None:
    """Target of a forked child: write the report of a run; exit code 0, 1 or 2."""
    run_logged(Path(log), lambda: _write(Path(run_dir), Path(store_dir)))


def _write(run_dir: Path, store_dir: Path) -> None:
    from deita_train.report.page import write_report

    write_report(run_dir, store_dir)

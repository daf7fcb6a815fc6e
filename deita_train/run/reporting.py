"""The report as a child process: figures need libraries that the run itself never imports."""

import os
import traceback
from pathlib import Path

from deita_train.run.locks import die_with_parent
from deita_train.run.worker import redirect_output


def forked_report(run_dir: str, store_dir: str, log: str) -> None:
    """Target of a forked child: write the report of a run; exit code 0 or 1."""
    redirect_output(Path(log))
    die_with_parent()
    from deita_train.report.page import write_report

    try:
        write_report(Path(run_dir), Path(store_dir))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

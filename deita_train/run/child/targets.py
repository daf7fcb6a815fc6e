"""What the run's fork server starts, each with its output in a log: trials, stand-ins, a stage, a report.

A child ends with code 0, 2 for what the user can fix, or 1.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deita_train.plan.node import Node
from deita_train.run.child.logs import run_logged
from deita_train.run.child.publishing import publish_stage
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import write_json_atomically


def in_environment(
    variables: Mapping[str, str], removed: Collection[str], target: Callable[..., None], arguments: Sequence[Any]
) -> None:
    """Call one of the others with the variables of the process that asked for it, and without those it removed."""
    for name in removed:
        os.environ.pop(name, None)
    os.environ.update(variables)
    target(*arguments)


def forked_trials(nodes: list[Node], in_bfloat16: list[tuple[str, float, bool]], result: str, log: str) -> None:
    """Try trainings, and work in bfloat16 on a CPU, and write what was found as JSON."""
    run_logged(Path(log), lambda: _try_trainings(nodes, in_bfloat16, Path(result)))


def forked_stand_ins(request: dict[str, Any], folder: str, result: str, log: str) -> None:
    """Make the stand-ins of a rehearsal, and write what was made as JSON."""
    run_logged(Path(log), lambda: _make_stand_ins(request, Path(folder), Path(result)))


def forked_stage(recipe_path: str, sets: list[str], runs_dir: str, artefact_id: str, log: str) -> None:
    """Carry out a stage of one process."""
    run_logged(Path(log), lambda: run_stage(Path(recipe_path), sets, Path(runs_dir), artefact_id))


def forked_publish(recipe_path: str, sets: list[str], runs_dir: str, artefact_id: str, log: str) -> None:
    """Publish a stage that several ranks have finished."""
    run_logged(Path(log), lambda: publish_stage(Path(recipe_path), sets, Path(runs_dir), artefact_id))


def forked_report(run_dir: str, store_dir: str, log: str) -> None:
    """Write the report of a run: figures need libraries that the run itself never imports."""
    run_logged(Path(log), lambda: _write_report(Path(run_dir), Path(store_dir)))


def _write_report(run_dir: Path, store_dir: Path) -> None:
    from deita_train.report.page import write_report

    write_report(run_dir, store_dir)


def _try_trainings(nodes: list[Node], in_bfloat16: list[tuple[str, float, bool]], result: Path) -> None:
    from deita_train.inference.cpu_bfloat16 import slow_stages
    from deita_train.stages.training.trial import try_trainings

    found = try_trainings(nodes, elsewhere=False)
    write_json_atomically(result, {"problems": [*found.problems, *slow_stages(in_bfloat16)], "notes": found.notes})


def _make_stand_ins(request: dict[str, Any], folder: Path, result: Path) -> None:
    from deita_train.run.child.stand_ins import make_stand_ins

    write_json_atomically(result, make_stand_ins(request, folder))

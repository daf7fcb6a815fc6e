"""`deita-train run --rehearse`: carries out the rehearsal and prints what it had in place of the real things."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deita_train.commands.results import print_results
from deita_train.errors import UserError
from deita_train.store.rehearsals import MARK, read_rehearsal

if TYPE_CHECKING:
    from rich.console import Console


def carry_out_rehearsal(
    console: "Console",
    recipe: Path,
    sets: Sequence[str],
    runs: Path,
    until: str | None,
    gpus: int | None,
    *,
    fresh: str | None,
    cell: str | None,
) -> None:
    """Rehearse a recipe, print its tables, and end with a line for each stage.

    Raises:
        UserError: an option does not go with a rehearsal; or what the real run would refuse.
    """
    from deita_train.run.rehearsal.rehearsal import rehearse

    if fresh is not None or cell is not None:
        option = "--fresh" if fresh is not None else "--cell"
        raise UserError(f"{option}: a rehearsal begins anew each time and has few cells; leave it out.")
    console.print(f"{MARK} of {recipe}: stand-ins for models, data and endpoints; its figures mean nothing.")
    done = rehearse(recipe, sets, runs, console, until=until, gpus=gpus)
    if done.outcome.page is not None:
        print_results(console, done.plan.run_dir)
        print_account(console, done.plan.run_dir)
        console.print(f"{MARK} report: {done.outcome.page}", soft_wrap=True)
    if done.outcome.error is not None:
        raise done.outcome.error


def print_account(console: "Console", run_dir: Path) -> None:
    """Print for each stage what the real run will have, and what the rehearsal had in its place."""
    console.print(f"{MARK}, stage by stage: what the real run will have -> what stood in for it here.")
    for stage in read_rehearsal(run_dir):
        console.print(f"{stage.label}: {stage.in_words}", soft_wrap=True, highlight=False, markup=False)

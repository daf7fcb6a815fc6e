"""`deita-train store`: what lies in a runs folder's store, whether it is whole, and what nothing uses any more."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deita_train.commands.options import RunsOption
from deita_train.errors import UserError

store_app = typer.Typer(no_args_is_help=True, help="List, verify and clean up the artefacts of all runs.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for other programs.")]


@store_app.command("ls")
def list_store(runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Show every artefact, its size and the runs that use it, and the work folders of unfinished stages."""
    from deita_train.commands.store_tables import artefact_table, total_line, unfinished_table
    from deita_train.store.inventory import take_inventory

    inventory = take_inventory(_store(runs), runs)
    if as_json:
        _print_json(asdict(inventory))
        return
    _print_tables(artefact_table(inventory.artefacts, "artefacts"), unfinished_table(inventory.unfinished))
    sys.stdout.write(f"{total_line(inventory)}\n")


@store_app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ARTEFACT]...", help="Their ids; all by default.", show_default=False)
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Compare every file of the artefacts with the digests that were taken when they were published."""
    from deita_train.commands.store_checks import check_artefacts

    store = _store(runs)
    checked = check_artefacts(store, names)
    damaged = {name: lines for name, lines in checked.items() if lines}
    if as_json:
        _print_json({"checked": len(checked), "damaged": damaged})
    else:
        for name, lines in damaged.items():
            sys.stdout.writelines(f"{store.path(name)}: {line}\n" for line in lines)
        sys.stdout.write(f"{len(checked) - len(damaged)} of {len(checked)} artefacts are as they were published.\n")
    if damaged:
        raise UserError(
            f"damaged: {', '.join(damaged)}. Remove these folders from {store.folder} and run their recipes again; "
            "what was made from them stays."
        )


@store_app.command()
def gc(
    runs: RunsOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it nothing is removed.")] = False,
    work: Annotated[
        float | None,
        typer.Option(
            "--work",
            min=0,
            metavar="DAYS",
            help="Also work folders of unfinished stages in which nothing was written for as many days.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what no run names and nothing in use was made from; with --yes, remove it.

    What a process works on stays, and so does what a run's link leads to.
    """
    from deita_train.commands.store_tables import artefact_table, removal_line, unfinished_table
    from deita_train.store.inventory import take_inventory
    from deita_train.store.removal import removable, remove

    store = _store(runs)
    chosen = removable(take_inventory(store, runs), None if work is None else work * 24 * 3600)
    removed = remove(store, runs, chosen) if yes else []
    if as_json:
        _print_json({"size": chosen.size, "removed": removed, **asdict(chosen)})
        return
    _print_tables(artefact_table(chosen.artefacts, "artefacts that nothing uses"), unfinished_table(chosen.unfinished))
    sys.stdout.write(f"{removal_line(chosen, removed if yes else None)}\n")


def _store(runs: Path) -> Any:
    from deita_train.store.artefacts import Store

    if not (runs / "store").is_dir():
        raise UserError(f"{runs} has no store. Give the folder of your runs with --runs, or as DEITA_RUNS.")
    return Store(runs / "store")


def _print_tables(*tables: Any) -> None:
    from rich.console import Console

    from deita_train.commands.printed_table import print_table

    console = Console()
    for table in tables:
        if table.rows:
            print_table(console, table, framed=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")

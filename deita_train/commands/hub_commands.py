"""`deita-train export` and `deita-train push` on the command line. Nothing heavy is imported before a command runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

_RunArgument = Annotated[Path, typer.Argument(help="The folder of a run, such as runs/quickstart.", show_default=False)]
_StageOption = Annotated[
    Literal["sft", "dpo", "select", "dpo_pairs"],
    typer.Option("--stage", help="The stage that left the model, or selected the rows or pairs.", show_default=False),
]
_CellOption = Annotated[
    str | None, typer.Option("--cell", help="A sweep's cell, by label or number.", show_default="the base run")
]


def add_hub_commands(app: typer.Typer) -> None:
    """Add both commands to the command line."""
    app.command()(export)
    app.command()(push)


def export(
    run_dir: _RunArgument,
    stage: _StageOption,
    output: Annotated[str, typer.Option("--output", help="A folder.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at --output.")] = False,
    cell: _CellOption = None,
) -> None:
    """Write the folder that `push` uploads: a tuned model, or the rows of a selection, with its card."""
    from rich.console import Console

    from deita_train.commands.exports import export_upload
    from deita_train.commands.uploads import find_upload
    from deita_train.data.outputs import Output

    upload = find_upload(run_dir, stage, cell)
    place = Output.for_model if upload.repo_type == "model" else Output.for_hub_dataset
    export_upload(upload, place(output, overwrite), Console())


def push(
    run_dir: _RunArgument,
    stage: _StageOption,
    repo: Annotated[str, typer.Option("--repo", help="user/name on the Hub; created if needed.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    cell: _CellOption = None,
) -> None:
    """Upload a tuned model, or the rows of a selection, with its card to the Hub."""
    from deita_train.commands.pushing import upload_to_hub
    from deita_train.commands.uploads import find_upload

    upload = find_upload(run_dir, stage, cell)
    sys.stdout.write(f"uploading the {upload.repo_type} {upload.artefact} and its card to {repo}\n")
    sys.stdout.write(f"{upload_to_hub(upload, repo, run_dir, private=private)}\n")

"""The command line. Nothing heavy is imported here: `--help` and `plan` answer at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deita_train.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Select instruction data by complexity, quality and diversity (DEITA), and train on it, from one recipe.",
)

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: dotted.path=value. May be repeated.")
]
RunsOption = Annotated[Path, typer.Option("--runs", envvar="DEITA_RUNS", help="Where runs and their artefacts lie.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Stop after this stage, such as select or sft.")]
StageOption = Annotated[str, typer.Option("--stage", help="The artefact's id, as `plan` prints it.")]


@app.command()
def run(
    recipe: RecipeArgument,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    until: UntilOption = None,
    fresh: Annotated[str | None, typer.Option("--fresh", help="Make this stage anew; what reads it follows.")] = None,
) -> None:
    """Carry out a recipe and write its report. The same command again continues where it stopped."""
    from deita_train.run.plan import make_plan
    from deita_train.run.results import print_results
    from deita_train.run.runner import run_plan

    console = _console()
    plan = make_plan(recipe, sets or [], runs, until)
    if plan.loaded.recipe.description:
        console.print(plan.loaded.recipe.description.strip(), style="italic")
    try:
        page = run_plan(plan, console, fresh)
    except KeyboardInterrupt:
        console.print("stopped; the same command continues from here")
        raise typer.Exit(130) from None
    print_results(console, plan.run_dir)
    console.print(f"Report: {page}", soft_wrap=True)


@app.command()
def plan(
    recipe: RecipeArgument, sets: SetOption = None, runs: RunsOption = Path("runs"), until: UntilOption = None
) -> None:
    """Show the stages of a recipe: what is done, what must run and why, and the command of each."""
    from deita_train.run.plan import make_plan
    from deita_train.run.results import print_plan

    print_plan(_console(), make_plan(recipe, sets or [], runs, until))


@app.command()
def validate(recipe: RecipeArgument, sets: SetOption = None, runs: RunsOption = Path("runs")) -> None:
    """Check a recipe and read its data, before anything is trained."""
    from deita_train.run.plan import make_plan
    from deita_train.run.validation import validate_data

    console = _console()
    made = make_plan(recipe, sets or [], runs)
    for line in validate_data(made):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"{recipe} is valid: {len(made.nodes)} stages in {len(made.cells)} cells.", highlight=False)


@app.command()
def stage(recipe: RecipeArgument, stage: StageOption, sets: SetOption = None, runs: RunsOption = Path("runs")) -> None:
    """Carry out one stage in this process; what `accelerate launch` starts on each rank."""
    from deita_train.run.worker import run_stage

    run_stage(recipe, sets or [], runs, stage)


@app.command(hidden=True)
def publish(
    recipe: RecipeArgument, stage: StageOption, sets: SetOption = None, runs: RunsOption = Path("runs")
) -> None:
    """Check and publish a stage that several ranks have finished."""
    from deita_train.run.worker import publish_by_name

    publish_by_name(recipe, sets or [], runs, stage)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/quickstart.", show_default=False)],
) -> None:
    """Write the report of a run again from its artefacts."""
    from deita_train.report.page import write_report
    from deita_train.run.results import print_results

    console = _console()
    if not (run_dir / "stages.json").is_file():
        raise UserError(f"{run_dir} is no run: it has no stages.json. Give the folder that `run` wrote, runs/<name>.")
    page = write_report(run_dir, run_dir.parent / "store")
    print_results(console, run_dir)
    console.print(f"Report: {page}", soft_wrap=True)


def _console():  # type: ignore[no-untyped-def]  # noqa: ANN202 - rich is imported only when a command runs
    from rich.console import Console

    return Console()


def main() -> None:
    """Entry point: the user's mistakes exit with code 2 and one message, ours with 1."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except Exception as error:
        if type(error).__name__ != "StageFailed":
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

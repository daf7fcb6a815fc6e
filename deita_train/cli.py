"""The command line. Nothing heavy is imported here, so that `--help` and `plan` answer at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deita_train.commands.completion import artefact_ids, recipe_files, recipe_names, stage_names
from deita_train.commands.hub_commands import add_hub_commands
from deita_train.commands.options import RunsOption, SetOption
from deita_train.commands.single_commands import add_commands
from deita_train.commands.store_command import store_app
from deita_train.errors import UserError, machine_fault
from deita_train.recipe.shipped import find_recipe

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Select instruction data by complexity, quality and diversity (DEITA), and train on it, from one recipe.",
)

add_commands(app)
add_hub_commands(app)
app.add_typer(store_app, name="store")

RecipeArgument = Annotated[
    Path,
    typer.Argument(
        help="The recipe: a YAML file, or the name of one that `recipes` lists.",
        show_default=False,
        autocompletion=recipe_files,
        callback=find_recipe,
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", help="Stop after this stage, such as select or sft.", autocompletion=stage_names),
]
StageOption = Annotated[
    str,
    typer.Option(
        "--stage",
        help="The artefact's id, as `plan --keys` prints it, or the stage's label.",
        show_default=False,
        autocompletion=artefact_ids,
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=0, help="GPUs of each machine that will run it; by default this machine's.", show_default=False
    ),
]

PartsOption = Annotated[
    int | None,
    typer.Option("--parts", min=1, help="Parts of each pass; default: what suits it.", show_default=False),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from deita_train.commands.version_line import version_line

        sys.stdout.write(f"{version_line()}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the versions of deita-train and its libraries.", is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:  # fmt: skip
    """What comes before a command."""


@app.command()
def run(
    recipe: RecipeArgument,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    until: UntilOption = None,
    fresh: Annotated[
        str | None,
        typer.Option("--fresh", help="Rebuild this stage; what reads it follows.", autocompletion=stage_names),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option("--cell", help="One cell of a sweep: its label or number, or shared for what several cells need."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Compute scores and embeddings in parts on this Ray cluster: host:port, auto, or local.",
            show_default=False,
        ),
    ] = None,
    parts: PartsOption = None,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Carry it out on this CPU within minutes, with stand-ins for what is large."),
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", min=0, help="With --rehearse: GPUs of each machine of the real run.", show_default=False
        ),
    ] = None,
) -> None:
    """Carry out a recipe and write its report. The same command again continues where it stopped."""
    from deita_train.commands.rehearsal import carry_out_rehearsal
    from deita_train.commands.results import print_cost, print_results
    from deita_train.plan.cost.costs import run_cost
    from deita_train.plan.plan import make_plan
    from deita_train.run.runner import Cluster, run_plan
    from deita_train.store.model_links import CELLS, artefact_of, base_links

    if parts is not None and ray is None:
        raise UserError("--parts: without --ray a run makes no parts. Leave it out, or start parts with stage --part.")
    console = _console()
    if rehearse and ray is not None:
        raise UserError("--ray: a rehearsal stays on this machine. Leave out --ray or --rehearse.")
    if rehearse:
        carry_out_rehearsal(console, recipe, sets or [], runs, until, gpus, fresh=fresh, cell=cell)
        return
    if gpus is not None:
        raise UserError("--gpus: a run uses the GPUs that this machine has; give it with --rehearse, or leave it out.")
    plan = make_plan(recipe, sets or [], runs, until)
    if plan.loaded.recipe.description:
        console.print(plan.loaded.recipe.description.strip(), style="italic")
    cost = run_cost(plan)
    print_cost(console, plan, cost)
    try:
        outcome = run_plan(plan, console, fresh, cell, None if ray is None else Cluster(ray, parts), cost)
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to continue")
        raise typer.Exit(130) from None
    if outcome.page is not None:
        print_results(console, plan.run_dir)
        made = {node.id for node in plan.cells[0].nodes.values()}
        for link in base_links(plan.run_dir).values():
            if artefact_of(link) in made:
                console.print(f"Model: {link}", soft_wrap=True)
        if any((plan.run_dir / CELLS).glob("*/*")):
            console.print(f"Models of the sweep's other cells: {plan.run_dir / CELLS}", soft_wrap=True)
        console.print(f"Report: {outcome.page}", soft_wrap=True)
    if outcome.error is not None:
        raise outcome.error


@app.command()
def plan(
    recipe: RecipeArgument,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    until: UntilOption = None,
    gpus: GpusOption = None,
    commands: Annotated[bool, typer.Option("--commands", help="Only the shell lines of a sweep's steps.")] = False,
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm", help="Only a SLURM script: jobs for the stages and parts of passes, or for a sweep's cells."
        ),
    ] = False,
    parts: PartsOption = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Only the shell lines of the stages that are not done.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="The kind of GPU, such as h100, a100 or 4090.", show_default="this machine's"),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share", min=0.01, max=1, help="The share of a GPU's peak that is reached.", show_default="as measured"
        ),
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Show the id of each stage's artefact.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for other programs.")] = False,
) -> None:
    """Show the stages of a recipe: what is done, what must run and why, and what it costs."""
    import json

    from deita_train.commands.results import print_plan
    from deita_train.commands.slurm import slurm_script
    from deita_train.commands.slurm_jobs import DEFAULT_PARTS, slurm_jobs
    from deita_train.plan.cells import cell_commands, stage_commands
    from deita_train.plan.cost.costs import chosen_gpu, plan_as_json, plan_cost
    from deita_train.plan.plan import make_plan, planned_stages

    if commands + slurm + stages + as_json > 1:
        raise UserError("--commands, --slurm, --stages and --json: each prints something else; give one of them.")
    if parts is not None and not slurm:
        raise UserError("--parts: only --slurm prints parts. Leave it out, or add --slurm.")
    kind, gpus = chosen_gpu(gpu, gpus)
    made = make_plan(recipe, sets or [], runs, until, gpus, may_be_unresolved=not stages)
    if commands:
        sys.stdout.writelines(f"{line}\n" for line in cell_commands(made, until))
    elif stages:
        sys.stdout.writelines(f"{line}\n" for line in stage_commands(made))
    elif slurm and len(made.cells) > 1 and parts is None:
        sys.stdout.write(slurm_script(made, until))
    elif slurm:
        sys.stdout.write(slurm_jobs(made, until, parts or DEFAULT_PARTS))
    elif as_json:
        found = planned_stages(made)
        data = plan_as_json(made, found, plan_cost(made, found, kind, share))
        sys.stdout.write(f"{json.dumps(data, indent=2, ensure_ascii=False)}\n")
    else:
        print_plan(_console(), made, gpu=kind, share=share, with_keys=keys)


@app.command()
def validate(
    recipe: RecipeArgument,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    gpus: GpusOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for other programs.")] = False,
) -> None:
    """Check a recipe, read its data, and render and label a sample of rows, before anything is trained."""
    from deita_train.commands.validation import print_validation, validate_recipe

    found = validate_recipe(recipe, sets or [], runs, gpus)
    if as_json:
        sys.stdout.write(f"{found.as_json()}\n")
    else:
        print_validation(_console(), found)
    if found.problems:
        raise typer.Exit(UserError.exit_code)


@app.command()
def inspect(
    recipe: RecipeArgument,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            help="The stage's label, such as sft or score.quality.",
            show_default="sft, else dpo",
            autocompletion=stage_names,
        ),
    ] = None,
    row: Annotated[
        str | None, typer.Option("--row", help="The id of the row or seed.", show_default="the first with a loss")
    ] = None,
    all_tokens: Annotated[bool, typer.Option("--all-tokens", help="List every token of a long row.")] = False,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    gpus: GpusOption = None,
) -> None:
    """Show a row as the model sees it: its text and tokens, what is trained, where it is cut.

    Of a stage that evolves or ranks: what a chat model is asked about one seed, and its answers.
    """
    from deita_train.commands.inspection import choose_stage, inspect_row
    from deita_train.commands.inspection_display import print_inspection, print_seed
    from deita_train.commands.seed_inspection import inspect_seed
    from deita_train.plan.plan import make_plan
    from deita_train.stages.kinds import STAGE_KINDS

    made = make_plan(recipe, sets or [], runs, planned_gpus=gpus)
    node = choose_stage(made, stage)
    if STAGE_KINDS[node.kind].asks_about_seeds:
        print_seed(_console(), inspect_seed(made, node, row))
    else:
        print_inspection(_console(), inspect_row(made, stage, row), all_tokens=all_tokens)


@app.command()
def stage(
    recipe: RecipeArgument,
    stage: StageOption,
    sets: SetOption = None,
    runs: RunsOption = Path("runs"),
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            help="Of a scoring or embedding pass, one part such as 3/64, or prepare. Any number may run at once.",
            show_default=False,
        ),
    ] = None,
    gpus: GpusOption = None,
) -> None:
    """Carry out one stage in this process, or a part of it; what `accelerate launch` starts on each rank."""
    from deita_train.run.child.part_process import run_part
    from deita_train.run.child.stage_process import run_stage

    if part is None:
        run_stage(recipe, sets or [], runs, stage, gpus)
    else:
        run_part(recipe, sets or [], runs, stage, part, gpus)


@app.command(hidden=True)
def publish(
    recipe: RecipeArgument, stage: StageOption, sets: SetOption = None, runs: RunsOption = Path("runs")
) -> None:
    """Check and publish a stage that several ranks have finished."""
    from deita_train.run.child.publishing import publish_stage

    publish_stage(recipe, sets or [], runs, stage)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Write this one to standard output, to be edited.", autocompletion=recipe_names),
    ] = None,
) -> None:
    """List the recipes that come with deita-train, or write one out: deita-train recipes NAME > my.yaml."""
    from deita_train.commands.recipe_list import recipe_table
    from deita_train.recipe.shipped import shipped_recipe

    if name is None:
        from deita_train.commands.printed_table import print_table

        print_table(_console(), recipe_table(), framed=False)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(shipped_recipe(name).read_bytes())


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, by which editors complete and check it."""
    import json

    from deita_train.recipe.json_schema import recipe_schema

    sys.stdout.write(f"{json.dumps(recipe_schema(), indent=1, ensure_ascii=False)}\n")


@app.command()
def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The folder of a run, such as runs/quickstart.", show_default=False),
    ],
) -> None:
    """Write the report of a run again from its artefacts; or, of several runs, compare them with the first."""
    from deita_train.commands.results import print_comparison, print_results
    from deita_train.plan.plan import store_folder
    from deita_train.report.page import write_report

    console = _console()
    if len(run_dirs) > 1:
        page = print_comparison(console, run_dirs)
    else:
        page = write_report(run_dirs[0], store_folder(run_dirs[0]))
        print_results(console, run_dirs[0])
    console.print(f"Report: {page}", soft_wrap=True)


def _console():  # type: ignore[no-untyped-def]  # noqa: ANN202 - rich is imported only when a command runs
    from rich.console import Console

    return Console()


def main() -> None:
    """Entry point: exits with 2 and one message for user errors and machine faults, with 1 for failures of ours."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        fault = machine_fault(error, "a file of the run")
        if fault is None and type(error).__name__ != "StageFailed":
            raise
        sys.stderr.write(f"error: {fault or error}\n")
        raise SystemExit(1 if fault is None else 2) from None


if __name__ == "__main__":
    main()

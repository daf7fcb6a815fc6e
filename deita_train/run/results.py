"""Tables on the terminal: a plan, and the results of a run."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from deita_train.durable import read_json
from deita_train.run.launch import Launch
from deita_train.run.plan import Plan, planned_stages


def print_plan(console: Console, plan: Plan) -> None:
    """Each artefact with its status and reason, then the commands that carry out the model stages by hand."""
    stages = planned_stages(plan)
    table = Table(
        title=f"{plan.loaded.recipe.name}: {len(stages)} stages, {len(plan.cells)} cells", title_justify="left"
    )
    for column in ("stage", "artefact", "status", "why", "launch"):
        table.add_column(column, overflow="fold")
    for stage in stages:
        launch = stage.node.settings.get("launch")
        shown = f"{Path(launch['config_file']).stem} x {launch['num_processes']}" if launch else ""
        table.add_row(stage.node.label, stage.node.id, stage.status, stage.reason, shown)
    console.print(table)
    waiting = [stage.node for stage in stages if stage.status != "done" and "launch" in stage.node.settings]
    if waiting:
        console.print("The model stages by hand, in this order:", highlight=False)
    for node in waiting:
        command = Launch.from_dict(node.settings["launch"]).printed_command(
            ["stage", *plan.arguments(), "--stage", node.id]
        )
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)


def print_results(console: Console, run_dir: Path) -> None:
    """The result tables that the report left."""
    for result in read_json(run_dir / "report" / "result.json"):
        table = Table(title=result["title"], title_justify="left")
        for place, column in enumerate(result["columns"]):
            table.add_column(column, justify="right" if place else "left", overflow="fold")
        for row in result["rows"]:
            table.add_row(*row)
        console.print(table)

"""What a run writes of itself before it makes anything: its recipe, its record, and its planned costs."""

from deita_train.errors import UserError
from deita_train.plan.cost.costs import PlanCost, kept_costs, run_cost
from deita_train.plan.identity import resolved_recipe
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, run_record
from deita_train.recipe.loading import load_data
from deita_train.recipe.yaml_text import to_yaml
from deita_train.store.atomic_io import write_text_atomically
from deita_train.store.run_record import STATED_RECIPE, RunRecord, keep_planned_costs


def write_record(plan: Plan, cost: PlanCost) -> None:
    """Write the recipe, as stated and resolved, the record and the planned costs of a plan's run."""
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    stated, _ = load_data(plan.loaded.path, plan.loaded.sets)
    write_text_atomically(plan.run_dir / STATED_RECIPE, to_yaml(stated))
    write_text_atomically(plan.run_dir / "recipe.resolved.yaml", to_yaml(resolved_recipe(plan.loaded.recipe)))
    run_record(plan).write(plan.run_dir)
    keep_planned_costs(plan.run_dir, kept_costs(plan, cost))


def record_stage(plan: Plan, node: Node) -> None:
    """Write the record, for a stage that is carried out without a run, if there is none that names the stage.

    `deita-train store gc` removes what no record names.
    """
    try:
        is_known = node.id in RunRecord.read(plan.run_dir).nodes
    except UserError:
        is_known = False
    if not is_known:
        write_record(plan, run_cost(plan))

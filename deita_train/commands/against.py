"""`evaluate --against`: another model measured as the first one, and how far apart the two are."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from rich.console import Console

from deita_train.commands.options import place
from deita_train.commands.printed_table import print_table
from deita_train.commands.single import Single
from deita_train.errors import UserError
from deita_train.plan.plan import Plan

MODEL = "evaluate.model"
_MEASURED = ("evaluate.heldout.dataset", "evaluate.preferences.dataset")


def against(single: Single, model: str) -> Single:
    """The command for the other model, without what the first one alone does: answer questions.

    Raises:
        UserError: nothing is measured that could be compared, or the model is the same.
    """
    if not any(field in single.fields for field in _MEASURED):
        raise UserError("--against: compares on held-out rows or pairs; state --heldout, --preferences or both.")
    if place(model) == single.fields[MODEL]:
        raise UserError(f"--against {model}: is --model itself; name another one.")
    if any(item.startswith(f"{MODEL}=") for item in single.sets):
        raise UserError(f"--against: --set {MODEL} would be the model of both; state --model instead.")
    fields = {name: value for name, value in single.fields.items() if not name.startswith("evaluate.answers.")}
    return replace(single, fields={**fields, MODEL: place(model)}, names={**single.names, MODEL: "--against"})


def print_models(console: Console, plans: Mapping[str, Plan]) -> None:
    """Print the measures of models side by side, and how far each is from the first one."""
    from deita_train.report.results.run_comparison import ComparedRun
    from deita_train.report.results.summary import Artefact
    from deita_train.report.run_page import comparison_tables

    def stages(plan: Plan) -> dict[str, Artefact]:
        ids = {label: node.id for label, node in plan.cells[0].nodes.items()}
        store = plan.store
        return {
            label: Artefact(store.path(name), asdict(store.manifest(name)), store.metrics(name))
            for label, name in ids.items()
        }

    models = [ComparedRun(name, stages(plan), is_model=True) for name, plan in plans.items()]
    tables, sentences = comparison_tables(models)
    for table in tables:
        print_table(console, table)
    for sentence in sentences:
        console.print(sentence, soft_wrap=not console.is_terminal, highlight=False, markup=False)

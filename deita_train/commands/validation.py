"""`deita-train validate`: reads every data source, renders and labels a sample of its rows, and tries the trainings."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from deita_train.errors import UserError
from deita_train.plan.cost.costs import run_cost
from deita_train.plan.disk import disk_lines
from deita_train.plan.plan import Plan, make_plan, missing_ids, planned_stages
from deita_train.plan.unread import unread_lines
from deita_train.run.trials import located, trainings, work_in_bfloat16
from deita_train.stages.kinds import STAGE_KINDS

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Validation:
    """What was found.

    Attributes:
        recipe: the recipe's file.
        lines: what each stage would read, keep and drop.
        problems: what would stop the run; none for a valid recipe.
        stages: how many stages it has, in how many `cells`; 0 where it cannot be planned.
    """

    recipe: str
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stages: int = 0
    cells: int = 0

    def as_json(self) -> str:
        """The same as one JSON object, with `valid`."""
        return json.dumps({"valid": not self.problems, **asdict(self)}, indent=2, ensure_ascii=False)


def validate_recipe(recipe: Path, sets: Sequence[str], runs: Path, gpus: int | None) -> Validation:
    """Plan a recipe and check its data and models; all problems are collected."""
    try:
        plan = make_plan(recipe, sets, runs, planned_gpus=gpus)
    except UserError as error:
        return Validation(str(recipe), problems=[str(error)])
    found = validate_data(plan)
    validate_trainings(plan, found, elsewhere=gpus is not None)
    found.lines += [*unread_lines(plan), *disk_lines(plan, planned_stages(plan))]
    return found


def validate_data(plan: Plan) -> Validation:
    """Check the data and the models of every stage, each with the stage's own code."""
    from deita_train.stages.validation import forget_checks

    lines: list[str] = []
    problems: list[tuple[str, str]] = []
    forget_checks()
    for node in plan.nodes:
        for module in STAGE_KINDS[node.kind].validations:
            try:
                lines.extend(import_module(module).validate(node))
            except UserError as error:
                problems.append((node.runtime.get("section", node.label), str(error)))
    forget_checks()
    # The cells of a sweep read the same data.
    lines = list(dict.fromkeys(lines))
    return Validation(str(plan.loaded.path), lines, grouped(problems), len(plan.nodes), len(plan.cells))


def grouped(problems: Sequence[tuple[str, str]]) -> list[str]:
    """Each problem once, under the names of all sections that have it.

    Several stages stumble over one damaged file, or over one model. Each problem comes with its section.
    """
    sections: dict[str, list[str]] = {}
    first_of: dict[str, str] = {}
    for section, problem in problems:
        first_of.setdefault(problem, section)
    for problem, section in first_of.items():
        masked = re.sub(rf"(?<![\w.]){re.escape(section)}(?=[.:])", _SECTION, problem)
        sections.setdefault(masked, []).append(section)
    return [_of_sections(masked, list(dict.fromkeys(named))) for masked, named in sections.items()]


_SECTION = "\0"


def _of_sections(masked: str, sections: Sequence[str]) -> str:
    """A problem at whose beginning all sections are named, and the first one elsewhere."""
    first, *others = sections
    text = masked.replace(_SECTION, first)
    return f"{text} The same holds for {', '.join(others)}." if others and _SECTION in masked else text


def validate_trainings(plan: Plan, found: Validation, *, elsewhere: bool) -> None:
    """Try every training that is to be made on a tiny copy of its model, and add what was found.

    Args:
        plan: the recipe's plan.
        found: what is known so far.
        elsewhere: whether another machine will run it, whose packages are unknown here.
    """
    missing = missing_ids(plan)
    if not elsewhere:
        heavy = work_in_bfloat16(plan.nodes, missing, run_cost(plan))
        slow = import_module("deita_train.inference.cpu_bfloat16").slow_stages(heavy) if heavy else []
        found.problems += located(plan, slow)
    nodes = trainings(plan.nodes, missing)
    if not nodes:
        return
    tried = import_module("deita_train.stages.training.trial").try_trainings(nodes, elsewhere=elsewhere)
    found.lines += tried.notes
    found.problems += located(plan, tried.problems)
    if not tried.problems:
        labels = ", ".join(dict.fromkeys(node.label for node in nodes))
        found.lines.append(f"trainings tried on a tiny copy of their model: {labels}")


def print_validation(console: "Console", found: Validation) -> None:
    """Print the lines, then the verdict; problems go to standard error."""
    for line in found.lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if found.problems:
        sys.stderr.writelines(f"error: {problem}\n" for problem in found.problems)
    else:
        cells = f" in {found.cells} cells" if found.cells > 1 else ""
        console.print(f"{found.recipe} is valid: {found.stages} stages{cells}.", highlight=False)

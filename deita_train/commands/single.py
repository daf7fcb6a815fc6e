"""One stage without a recipe: a command's options become one, and its stage is built like any other."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from deita_train.data.outputs import Output
from deita_train.errors import UserError
from deita_train.plan.graph import build_graph
from deita_train.plan.inputs import Inputs
from deita_train.plan.plan import COMMANDS, Plan, is_current, make_plan
from deita_train.recipe.loading import check_recipe
from deita_train.recipe.overrides import apply_overrides
from deita_train.recipe.schema import Recipe
from deita_train.recipe.yaml_text import to_yaml
from deita_train.run.runner import build_stages
from deita_train.store.atomic_io import write_text_atomically
from deita_train.store.keys import canonical_json


def _check_nothing(recipe: Recipe) -> None:
    """Of commands whose options always fit together."""


@dataclass(frozen=True)
class Single:
    """A command that makes one stage.

    Attributes:
        name: of the command.
        label: of the stage; None for every stage of the recipe.
        fields: the recipe's fields by dotted path, with their values.
        names: the option that states a field, by the field; messages name it.
        sets: `--set` overrides.
        check: raises :class:`UserError` for options that do not fit together.
    """

    name: str
    label: str | None
    fields: Mapping[str, Any]
    names: Mapping[str, str]
    sets: tuple[str, ...] = ()
    check: Callable[[Recipe], None] = _check_nothing

    @property
    def title(self) -> str:
        """The command as it is typed; messages name it in place of a recipe's file."""
        return f"deita-train {self.name}"

    def sections(self) -> dict[str, Any]:
        """The recipe's data, without its name."""
        data: dict[str, Any] = {}
        for field, value in self.fields.items():
            _put(data, field.split("."), deepcopy(value))
        return apply_overrides(data, self.sets)


def carry_out(single: Single, runs_dir: Path, outputs: Sequence[tuple[str, Output]], console: Console) -> Plan:
    """Build what is missing of a command's stage.

    Args:
        single: the command.
        runs_dir: the folder of all runs.
        outputs: where results will be written, each with the label of its stage.
        console: shows the progress.

    Raises:
        UserError: an output exists and its stage is not built yet. If the stage is built, the output may be its own.
    """
    for _, output in outputs:
        _refuse_input(single, output)
    plan = lay_out(single, runs_dir)
    for label, output in outputs:
        node = plan.cells[0].nodes[label]
        if not all(is_current(plan.store, read) for read in (node, *node.ancestors())):
            output.refuse_replacing()
    build_stages(plan, console)
    return plan


def lay_out(single: Single, runs_dir: Path) -> Plan:
    """Check a command's recipe, write it to `<runs>/commands/<name>-<key>/recipe.yaml`, and plan it.

    Raises:
        UserError: in terms of the options, before anything is written.
    """
    data = single.sections()
    if "sweep" in data:
        raise UserError(f"--set sweep: {single.title} makes one result; write a recipe for a sweep.")
    try:
        recipe = check_recipe({"name": single.name, **data}, single.title, None, single.sets)
        single.check(recipe)
        key = hashlib.sha256(canonical_json([single.name, data]).encode()).hexdigest()
        data = {"name": f"{single.name}-{key[:12]}", **data}
        data = {field: data[field] for field in Recipe.model_fields if field in data}
        folder = runs_dir / COMMANDS / data["name"]
        inputs = Inputs(runs_dir / "store", folder, Path(single.title))
        build_graph(recipe, inputs)
    except UserError as error:
        raise _in_options(error, single) from None
    inputs.save()
    folder.mkdir(parents=True, exist_ok=True)
    head = f"# The recipe of one `{single.title}`; `deita-train run` and `plan` take it too.\n"
    write_text_atomically(folder / "recipe.yaml", head + to_yaml(data))
    return make_plan(folder / "recipe.yaml", [], runs_dir, single.label)


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    *sections, name = path
    for section in sections:
        data = data.setdefault(section, {})
    data[name] = value


def _refuse_input(single: Single, output: Output) -> None:
    """Refuse to write a result over one of its inputs."""
    for field, value in single.fields.items():
        is_path = isinstance(value, str) and Path(value).exists()
        if is_path and output.path.exists() and output.path.samefile(value):
            raise UserError(f"--output {output.path} is also {single.names[field]}. Give another name.")


def _in_options(error: UserError, single: Single) -> UserError:
    """The same message with options in place of the recipe's fields."""
    pattern = rf"^{re.escape(single.title)}: ([\w.]+): "
    text = re.sub(pattern, lambda match: f"{_option(match[1], single)}: ", str(error), flags=re.MULTILINE)
    return UserError(text)


def _option(field: str, single: Single) -> str:
    """The option that states a field, or an entry of its list; the field itself where none does."""
    return single.names.get(re.sub(r"(\.\d+)+$", "", field), field)

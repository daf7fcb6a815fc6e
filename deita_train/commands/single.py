"""One stage without a recipe of one's own: a command's options become a recipe, whose stage is made as any other."""

import hashlib
import re
from collections.abc import Callable, Sequence
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
from deita_train.recipe.yaml_source import parse_value
from deita_train.recipe.yaml_text import to_yaml
from deita_train.run.runner import build_stages
from deita_train.store.atomic_io import write_text_atomically
from deita_train.store.keys import canonical_json

_OWN_FILES = (".yaml", ".yml", ".jinja")


@dataclass(frozen=True)
class Option:
    """An option of a command: its name, the recipe's field that it states, the value, and whether it was given."""

    name: str
    path: str
    value: Any
    is_given: bool = True


def _check_nothing(recipe: Recipe) -> None:
    """For commands whose options always fit together."""


@dataclass(frozen=True)
class Single:
    """A command that makes one stage.

    Attributes:
        name: the command's.
        label: of the stage; None for every stage of the recipe.
        options: what becomes the recipe.
        sets: `--set` settings laid over it.
        check: raises :class:`UserError` for options that do not fit together.
    """

    name: str
    label: str | None
    options: tuple[Option, ...]
    sets: tuple[str, ...] = ()
    check: Callable[[Recipe], None] = _check_nothing

    @property
    def title(self) -> str:
        """The command as it is typed; it stands where messages name a recipe's file."""
        return f"deita-train {self.name}"

    def sections(self) -> dict[str, Any]:
        """The recipe's data, without its name."""
        data: dict[str, Any] = {}
        for option in self.options:
            if option.is_given:
                _put(data, option.path.split("."), option.value)
        return apply_overrides(data, self.sets)


def as_options(*options: tuple[str, str, Any]) -> tuple[Option, ...]:
    """Options as (name, field, value); one whose value is None was not given."""
    return tuple(Option(name, path, value, value is not None) for name, path, value in options)


def trainer_options(section: str, settings: Sequence[str]) -> tuple[Option, ...]:
    """Each `field=value` as an option for the section's `trainer:`. Raises :class:`UserError` for other text."""
    options = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--trainer {setting}: write it as field=value, for instance learning_rate=2e-5")
        option = f"--trainer {name}"
        options.append(Option(option, f"{section}.trainer.{name}", parse_value(value, source=option)))
    return tuple(options)


def place(text: str | None) -> str | None:
    """A path that does not depend on the working folder, or as it is what names nothing here, such as a Hub id."""
    if text is None:
        return None
    path = Path(text).expanduser()
    return str(path.absolute()) if path.exists() else text


def place_file(text: str | None) -> str | None:
    """`place` for what may be the name of a file of ours; only a file of one's own has a suffix."""
    return place(text) if text is not None and Path(text).suffix in _OWN_FILES else text


def carry_out(single: Single, runs_dir: Path, outputs: Sequence[tuple[str, Output]], console: Console) -> Plan:
    """Make what is missing of a command's stage.

    `outputs` are places for what stages give, each with the stage's label. Raises :class:`UserError` before anything is
    made when one is there, unless its stage is made already: then it may be this command's own.
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

    Raises :class:`UserError` in terms of the options, before anything is written.
    """
    data = single.sections()
    if "sweep" in data:
        raise UserError(f"--set sweep: {single.title} makes one result; write a recipe for a sweep.")
    try:
        recipe = check_recipe({"name": single.name, **data}, single.title, None, single.sets)
        single.check(recipe)
        key = hashlib.sha256(canonical_json([single.name, data]).encode()).hexdigest()
        data = {"name": f"{single.name}-{key[:12]}", **data}
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
    """A result in the place of what it was made from could not be made again."""
    for option in single.options:
        is_path = isinstance(option.value, str) and Path(option.value).exists()
        if is_path and output.path.exists() and output.path.samefile(option.value):
            raise UserError(f"--output {output.path} is also {option.name}. Give another name.")


def _in_options(error: UserError, single: Single) -> UserError:
    """The same message with the command's options in the place of the recipe's fields."""
    names = {option.path: option.name for option in single.options}
    pattern = rf"^{re.escape(single.title)}: ([\w.]+): "
    text = re.sub(pattern, lambda match: f"{names.get(match[1], match[1])}: ", str(error), flags=re.MULTILINE)
    return UserError(text)

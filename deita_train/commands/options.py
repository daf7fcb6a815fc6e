"""An option of a single command: how the command line shows it, and which field of a recipe it states."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from deita_train.data.places import is_pattern, is_url
from deita_train.errors import UserError

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: dotted.path=value. May be repeated.")
]
RunsOption = Annotated[Path, typer.Option("--runs", envvar="DEITA_RUNS", help="The folder of runs and artefacts.")]
REQUIRED = inspect.Parameter.empty
_OWN_FILES = (".yaml", ".yml", ".jinja")


@dataclass(frozen=True)
class OptionSpec:
    """One row of the table of options.

    Attributes:
        name: as it is typed; in capitals for an argument.
        field: the recipe's field that it states, with `{dimension}`; empty for none.
        help: the line of `--help`.
        type: of the value, apart from None.
        default: of the value; `REQUIRED` for none. None and False state nothing.
        shown: what `--help` shows as the default; True for the default itself.
        read: turns the value into the recipe's.
        entries: the name of each entry, with {} for its key, where `read` gives fields below `field` by name.
        metavar: what `--help` shows in place of the type.
    """

    name: str
    field: str
    help: str
    type: Any = str
    default: Any = None
    shown: str | bool = False
    read: Callable[[Any], Any] | None = None
    entries: str = ""
    metavar: str | None = None

    @property
    def parameter_name(self) -> str:
        """The name under which a command's function gets the value."""
        return self.name.lstrip("-").replace("-", "_").lower()

    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of the function that typer makes a command of."""
        shown: dict[str, Any] = {"help": self.help, "show_default": self.shown, "metavar": self.metavar}
        info = typer.Option(self.name, **shown) if self.name.startswith("-") else typer.Argument(**shown)
        kind: Any = self.type | None if self.default is None else self.type
        return inspect.Parameter(
            self.parameter_name,
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[kind, info],
        )

    def stated(self, value: Any, field: str) -> dict[str, tuple[str, Any]]:
        """Field -> the option's name and the recipe's value; empty when the option was not given."""
        if value is None or value is False:
            return {}
        read = value if self.read is None else self.read(value)
        if not self.entries:
            return {field: (self.name, read)}
        return {f"{field}.{key}": (self.entries.format(key), entry) for key, entry in read.items()}


def place(text: str) -> str:
    """An existing path or a pattern of paths made absolute; anything else, such as a Hub id, as it is."""
    path = Path(text).expanduser()
    is_local = path.exists() or (is_pattern(text) and not is_url(text))
    return str(path.absolute()) if is_local else text


def place_of_file(text: str) -> str:
    """`place` for what may name a file that deita_train ships: only a file of the user's has a suffix."""
    return place(text) if Path(text).suffix in _OWN_FILES else text


def trainer_fields(settings: list[str]) -> dict[str, Any]:
    """The fields in `field=value` texts.

    Raises:
        UserError: a text has another form.
    """
    from deita_train.recipe.yaml_source import parse_value

    fields = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--trainer {setting}: write it as field=value, for instance learning_rate=2e-5")
        fields[name] = parse_value(value, source=f"--trainer {name}")
    return fields

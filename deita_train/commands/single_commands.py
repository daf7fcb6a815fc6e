"""The single commands on the command line: a stage from options in place of a recipe, as the table says.

Nothing heavy is imported before a command runs.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer

from deita_train.commands.command_table import COMMANDS, SingleCommand
from deita_train.commands.options import RunsOption, SetOption

_OF_EVERY_COMMAND = (
    Parameter("sets", Parameter.KEYWORD_ONLY, default=None, annotation=SetOption),
    Parameter("runs", Parameter.KEYWORD_ONLY, default=Path("runs"), annotation=RunsOption),
)


def add_commands(app: typer.Typer) -> None:
    """Add the single commands to the command line."""
    for command in COMMANDS:
        app.command(command.name, help=command.help, rich_help_panel="One stage without a recipe")(_function(command))


def _function(command: SingleCommand) -> Callable[..., None]:
    """The command as a function with a parameter for each option, as typer reads it."""

    def carry_out(**values: Any) -> None:
        from deita_train.commands.finishing import FINISH
        from deita_train.commands.single import Single

        stated: dict[str, tuple[str, Any]] = {}
        names = dict(command.names)
        for spec in filter(lambda spec: spec.field, command.options):
            field = spec.field.format(**values)
            names[field] = spec.name
            stated |= spec.stated(values[spec.parameter_name], field)
        names |= {field: name for field, (name, _) in stated.items()}
        fields = {**command.fixed, **{field: value for field, (_, value) in stated.items()}}
        label = None if command.label is None else command.label.format(**values)
        FINISH[command.gives](Single(command.name, label, fields, names, tuple(values["sets"] or ())), values)

    parameters = [*(spec.parameter() for spec in command.options), *_OF_EVERY_COMMAND]
    carry_out.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    carry_out.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return carry_out

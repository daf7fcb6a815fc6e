"""Tables on the terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from deita_train.table import Table


def print_table(console: Console, table: Table, *, framed: bool = True) -> None:
    """Print a table and its note; without a frame it is narrower, and the names of its rows stay on one line."""
    style: dict[str, Any] = {} if framed else {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0)}
    shown = RichTable(title=escape(table.title), title_justify="left", **style)
    for place, column in enumerate(table.columns):
        names_rows = place == 0 and not framed
        justify: Any = "right" if column.numeric else "left"
        shown.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=names_rows)
    for row in table.rows:
        # As Text, because brackets in a recipe's values are no markup.
        shown.add_row(*map(Text, row))
    console.print(shown)
    if table.note:
        console.print(Text(table.note, style="dim"))
        console.print()

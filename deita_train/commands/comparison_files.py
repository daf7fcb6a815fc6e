"""What `select --compare` prints and writes beside its output: tables, measures, a figure."""

import json
import sys
from dataclasses import dataclass

from rich.console import Console

from deita_train.commands.exports import fewer_than_budget, say
from deita_train.commands.printed_table import print_table
from deita_train.data.outputs import Output
from deita_train.plan.plan import Plan


@dataclass(frozen=True)
class ComparisonFiles:
    """The files of a comparison: tables (Markdown), measures (JSON) and a figure (PNG)."""

    tables: Output
    measures: Output
    figure: Output

    @classmethod
    def beside(cls, output: Output) -> "ComparisonFiles":
        """The files beside a command's output.

        Raises:
            UserError: a folder is in the place of a file.
        """
        return cls(*(output.beside(f".compare.{suffix}") for suffix in ("md", "json", "png")))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All three."""
        return self.tables, self.measures, self.figure

    def write(self, plan: Plan, console: Console) -> None:
        """Write and print the comparison that the stage `compare` made."""
        from deita_train.report.figures.comparison_figure import comparison_png
        from deita_train.selection.measures.compared import from_json
        from deita_train.selection.measures.comparison_tables import all_tables, shown_tables

        node = plan.cells[0].nodes["compare"]
        values = plan.store.metrics(node.id)["comparison"]
        comparison = from_json(values)
        text = "\n".join(table.markdown() for table in all_tables(comparison))
        _write(self.tables, f"# Selections compared\n\n![]({self.figure.path.name})\n\n{text}".encode())
        _write(self.measures, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
        _write(self.figure, comparison_png(comparison))
        for table in shown_tables(comparison):
            print_table(console, table, framed=False)
        say(console, f"{self.tables.path}, {self.measures.path} and {self.figure.path}: the comparison")
        _warn(plan, node.identity["methods"][1:])


def _warn(plan: Plan, methods: list[str]) -> None:
    """Warn of compared selections that did not meet the budget."""
    for method in methods:
        warning = fewer_than_budget(plan.store.metrics(plan.cells[0].nodes[f"select.{method}"].id))
        if warning:
            sys.stderr.write(f"warning: {method}: {warning}\n")


def _write(output: Output, content: bytes) -> None:
    with output.writing() as path:
        path.write_bytes(content)

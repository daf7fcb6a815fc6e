"""A table as plain data: what a command prints and a report may set."""

from dataclasses import dataclass

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class TextTable:
    """Rows of text under headings; the first column names the row.

    Attributes:
        title: what the table shows.
        columns: the headings.
        rows: one tuple of texts a row, as many as there are headings.
        note: how to read it, in sentences; may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"ragged rows in '{self.title}'"

    def markdown(self) -> str:
        """The table with its title and note as Markdown, numbers aligned right, ending in a newline."""
        head, *body = ("| " + " | ".join(map(_escaped, row)) + " |" for row in (self.columns, *self.rows))
        ruler = "|---|" + "---:|" * (len(self.columns) - 1)
        note = f"\n{self.note}\n" if self.note else ""
        return "\n".join([f"**{self.title}**", "", head, ruler, *body]) + "\n" + note


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def number_text(value: float | None, decimals: int) -> str:
    """A number with a fixed number of decimals, thousands separated, a true minus sign; a dash for None and nan."""
    if value is None or value != value:
        return ABSENT
    text = f"{value:,.{decimals}f}"
    return text[1:] if float(text.replace(",", "")) == 0 and text[0] == "-" else text.replace("-", MINUS)


def share_text(value: float | None) -> str:
    """A fraction of one as a percentage; a dash for None."""
    return ABSENT if value is None else f"{100 * value:.1f}%"

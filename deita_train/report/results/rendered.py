"""What became of the rows that a training rendered by its chat template: which template, and which rows it left out."""

from pathlib import Path

from deita_train.data.row_refusal import REFUSALS
from deita_train.data.shipped_templates import template_name
from deita_train.number_text import count, plural
from deita_train.report.results.summary import Artefact, Cell


def template_words(item: Artefact) -> str:
    """Which chat template an artefact was made with, and whose it is as far as that is known."""
    if item.template is not None:
        return f"the file {Path(item.template).name}" if item.template.endswith(".jinja") else item.template
    config = item.manifest["config"]
    own = "the model's own template" if config.get("published_template") else "the recipe's or the model's own"
    return template_name(config["chat_template"]) or own


def refused(item: Artefact) -> dict[str, int]:
    """The rows that the template cannot write, by reason."""
    return {reason: number for reason, number in item.manifest["drops"].items() if reason in REFUSALS}


def left_out_lines(cell: Cell) -> list[str]:
    """A line for each training of a cell that left rows out."""
    lines = []
    for label, noun in (("sft", "selected row" if trains_on_selection(cell) else "row"), ("dpo", "pair")):
        item = cell.stages.get(label)
        drops = {} if item is None else {reason: number for reason, number in item.manifest["drops"].items() if number}
        if item is not None and drops:
            lost, trained = sum(drops.values()), item.metric("train_rows")
            reasons = ", ".join(f"{reason} {count(number)}" for reason, number in drops.items())
            were = "was" if lost == 1 else "were"
            lines.append(
                f"{label}: {count(lost)} of the {plural(lost + trained, noun)} {were} left out ({reasons}); trained on "
                f"{count(trained)}"
            )
    return lines


def trains_on_selection(cell: Cell) -> bool:
    """Whether SFT reads what the selection kept."""
    return "select" in cell.stages and "sft_data" not in cell.stages

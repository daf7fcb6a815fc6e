"""What the stages that read data say of it for `deita-train validate`, before anything runs."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from deita_train.data.intake import IntakeReport
from deita_train.data.intake_notes import intake_notes


class StageToValidate(Protocol):
    """A stage that has not run."""

    @property
    def label(self) -> str:
        """Its name in the recipe."""

    @property
    def kind(self) -> str:
        """Its kind, a key of `STAGE_KINDS`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its content."""

    @property
    def runtime(self) -> Mapping[str, Any]:
        """How it runs, and where its data lies."""

    @property
    def parents(self) -> Mapping[str, "StageToValidate"]:
        """The stages that it reads, by role."""


def report_lines(report: IntakeReport) -> Iterator[str]:
    """The reasons for dropped rows with examples, and notes on what was done with the others."""
    yield from drop_lines(report.drops, report.examples)
    for note in intake_notes(report.as_dict()):
        yield f"  note: {note}"


def drop_lines(drops: Mapping[str, int], examples: Mapping[str, list[str]]) -> Iterator[str]:
    """The reasons for which rows are dropped, each with its first examples; a sample's remainder has none."""
    for reason, count in drops.items():
        yield f"  {reason}: {count:,}"
        for example in examples.get(reason, ()):
            yield f"    {example}"

"""What the stages that read data say of it for `deita-train validate`, before anything runs."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol

import datasets

from deita_train.data.intake import IntakeReport
from deita_train.data.intake_notes import intake_notes
from deita_train.stages.kinds import stage_module


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


def read_once(stage: StageToValidate) -> tuple[datasets.Dataset, Any]:
    """The rows of a stage that reads data, and the account of them; several stages that read one pool share it.

    Those of a cleaned pool follow from the pool that it cleans.
    """
    sources = stage.parents.get("pool", stage)
    identity, runtime = (json.dumps(part, sort_keys=True, default=str) for part in (sources.identity, sources.runtime))
    cleaning = json.dumps(stage.identity, sort_keys=True) if sources is not stage else None
    return _read(sources.kind, identity, runtime, cleaning)


def is_repeated(check: Mapping[str, Any]) -> bool:
    """Whether the same check was made before for this recipe."""
    text = json.dumps(check, sort_keys=True, default=str)
    repeated = text in _CHECKED
    _CHECKED.add(text)
    return repeated


_CHECKED: set[str] = set()


def forget_checks() -> None:
    """Forget the checks and free the rows that are kept while a recipe is validated."""
    _read.cache_clear()
    _CHECKED.clear()


@lru_cache(maxsize=4)
def _read(kind: str, identity: str, runtime: str, cleaning: str | None) -> tuple[datasets.Dataset, Any]:
    if cleaning is not None:
        cleaned = stage_module("clean_pool").cleaned_rows(*_read(kind, identity, runtime, None), json.loads(cleaning))
        return cleaned
    found: tuple[datasets.Dataset, Any] = stage_module(kind).read_rows(json.loads(identity), json.loads(runtime))
    return found


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

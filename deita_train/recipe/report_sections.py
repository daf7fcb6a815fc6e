"""Section `report:`, what the report shows beside the run's own figures. Nothing in it is part of a key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deita_train.cell_settings import is_seed, treatment_of
from deita_train.evaluation.published import LM_EVAL, MEASURES, published_measure
from deita_train.recipe.data_sections import Section
from deita_train.recipe.wording import nearest

Value = Annotated[float, Field(allow_inf_nan=False)]


class Published(Section):
    """Figures that a publication reports of one model, to stand beside the run's own."""

    source: Annotated[str, Field(pattern=r"\S")]
    """Where they are published, as the report names it: `DEITA paper, Table 6`."""
    model: Literal["base", "sft", "dpo", "served"]
    """The model of this recipe that they are compared with."""
    cell: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Settings that name a cell of the sweep, by dotted path and without seeds: `{select.method: random}`. By default
    the figures stand beside the base run's."""
    figures: Annotated[dict[str, Value], Field(min_length=1)]
    """For each measure its value as published: MT-Bench's ratings from 1 to 10, all others in percent. Measures are
    `mt_bench`, `alpaca_eval`, `alpaca_eval.length_controlled`, `lm_eval.mean` (of `open_llm_v1`) and `lm_eval.TASK`."""

    @model_validator(mode="after")
    def _values_on_their_scales(self) -> Self:
        for name, value in self.figures.items():
            measure = published_measure(name)
            if measure is None:
                continue  # `check_published` says which are known, with the tasks of the recipe
            if not measure.lowest <= value <= measure.highest:
                raise ValueError(f"figures.{name}: {value:g} is not from {measure.lowest:g} to {measure.highest:g}")
        return self


class Report(Section):
    """What the report shows beside the run's own figures. No part of any key."""

    published: Annotated[list[Published], Field(min_length=1)]
    """Figures of publications, each with its source; a measure that the run lacks is listed as not measured."""


def check_published(
    report: Report | None, tasks: Sequence[str], cells: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """What is wrong with published figures: the place below the recipe, and the message.

    Args:
        report: of the recipe.
        tasks: that its `evaluate.lm_eval` names.
        cells: the settings of each cell of its sweep.
    """
    for place, entry in enumerate(report.published if report is not None else ()):
        where = f"report.published.{place}"
        for name in entry.figures:
            problem = _unknown_measure(name, tasks)
            if problem:
                yield f"{where}.figures", problem
        if entry.cell is not None:
            problem = _no_single_cell(entry.cell, cells)
            if problem:
                yield f"{where}.cell", problem


def _unknown_measure(name: str, tasks: Sequence[str]) -> str:
    allowed = list(dict.fromkeys([*MEASURES, *(f"{LM_EVAL}.{task}" for task in tasks)]))
    if name in allowed:
        return ""
    near = nearest(name, allowed)
    meant = f" (did you mean {near}?)" if near else ""
    return (
        f"{name} is no measure{meant}; allowed: {', '.join(allowed)}. Other tasks of the harness are allowed once "
        "evaluate.lm_eval.tasks names them."
    )


def _no_single_cell(named: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """Why settings do not name cells that are alike but for their seeds; empty where they do."""
    seed = next(filter(is_seed, named), None)
    if seed is not None:
        return f"{seed}: a figure stands beside the mean over seeds; leave it out."
    if not cells:
        return "the recipe has no sweep:, whose cells it could name; leave it out."
    treatments = list(map(treatment_of, cells))
    found = [treatment for treatment in treatments if named.items() <= treatment.items()]
    distinct = [treatment for place, treatment in enumerate(found) if treatment not in found[:place]]
    if not distinct:
        known = "; ".join(dict.fromkeys(map(_text, treatments)))
        return f"the sweep has no cell with {_text(named)}; it has {known}."
    if len(distinct) > 1:
        return f"several cells have {_text(named)}: {'; '.join(map(_text, distinct))}. State more of their settings."
    return ""


def _text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}: {value}" for path, value in settings.items())

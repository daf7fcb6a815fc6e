"""The report's sections in the order of reading."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.answer_section import answer_section
from deita_train.report.sections.benchmark_section import benchmark_section
from deita_train.report.sections.comparison_section import comparison_section
from deita_train.report.sections.contamination_section import contamination_section
from deita_train.report.sections.cost_section import cost_section
from deita_train.report.sections.funnel_section import funnel_section
from deita_train.report.sections.intake_sections import pairs_section, pool_section
from deita_train.report.sections.label_section import label_section
from deita_train.report.sections.map_section import map_section
from deita_train.report.sections.outcome_sections import result_section, training_section
from deita_train.report.sections.published_section import published_section
from deita_train.report.sections.rehearsal_section import marked_section, rehearsal_section
from deita_train.report.sections.run_sections import (
    cards_section,
    failure_section,
    provenance_section,
    recipe_section,
    time_section,
)
from deita_train.report.sections.scorer_section import scorer_section
from deita_train.report.sections.section import Section
from deita_train.report.sections.selection_sections import selection_section

_SECTIONS = (
    rehearsal_section,
    result_section,
    failure_section,
    funnel_section,
    selection_section,
    map_section,
    comparison_section,
    scorer_section,
    label_section,
    training_section,
    benchmark_section,
    published_section,
    answer_section,
    contamination_section,
    pool_section,
    pairs_section,
    cards_section,
    time_section,
    cost_section,
    provenance_section,
    recipe_section,
)


def sections_of(summary: RunSummary, groups: Sequence[Group]) -> list[Section]:
    """The sections for which the run has data."""
    built = (build(summary, groups) for build in _SECTIONS)
    found = [section for section in built if section is not None]
    return [marked_section(section) for section in found] if summary.rehearsal else found

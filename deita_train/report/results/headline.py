"""The few numbers at the top of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.number_text import count, decimals, duration, plural, share, significant
from deita_train.report.results.groups import Group
from deita_train.report.results.result_measures import (
    EVOL_SCORE,
    best_rival,
    column_measure,
    first_loss,
    last_accuracy,
    model_before,
    share_columns,
    untuned_name,
)
from deita_train.report.results.summary import Artefact, RunSummary

MAX_NUMBERS = 4


@dataclass(frozen=True)
class HeadlineNumber:
    """A number that matters, what it is, and one line to judge it by."""

    value: str
    label: str
    note: str


def headline(summary: RunSummary, groups: Sequence[Group]) -> list[HeadlineNumber]:
    """At most four numbers, the outcome first."""
    select = summary.base_cell.stages.get("select")
    found = [
        _loss_number(groups),
        _accuracy_number(groups),
        _kept_number(select),
        _share_number(summary, select) or _score_number(select),
        _scorer_number(summary),
        _time_number(summary),
    ]
    return [number for number in found if number is not None][:MAX_NUMBERS]


def _loss_number(groups: Sequence[Group]) -> HeadlineNumber | None:
    item = first_loss(groups[0])
    if item is None:
        return None
    rival, before = best_rival(groups, item), item.reference_estimate(groups[0])
    if rival is not None:
        note = f"{rival.label}: {item.text(item.known(rival))}; lower is better"
    elif before is not None:
        note = f"{untuned_name(groups)}: {item.text(before)}; lower is better"
    else:
        note = "nats per token; lower is better"
    return HeadlineNumber(item.text(item.known(groups[0])), item.title, note)


def _accuracy_number(groups: Sequence[Group]) -> HeadlineNumber | None:
    item = last_accuracy(groups[0])
    if item is None:
        return None
    stage, name = model_before(groups[0], item.stage, untuned_name(groups))
    before = groups[0].estimate(stage, item.read)
    note = f"{name}: {item.text(before)}; higher is better" if before is not None else "higher is better"
    return HeadlineNumber(item.text(item.known(groups[0])), item.title, note)


def _kept_number(select: Artefact | None) -> HeadlineNumber | None:
    if select is None:
        return None
    rows_in, rows_out = select.metric("rows_in"), select.metric("rows_out")
    note = f"of {count(rows_in)} in the pool, {share(rows_out / rows_in)}"
    return HeadlineNumber(count(rows_out), "rows kept", note)


def _share_number(summary: RunSummary, select: Artefact | None) -> HeadlineNumber | None:
    """The mean of the pool's first yes/no column."""
    names = share_columns(summary)
    if select is None or not names:
        return None
    means, title = select.metric("columns")[names[0]], column_measure(names[0], is_share=True).title
    return HeadlineNumber(share(means["selected"]), f"{title} of the kept rows", f"of the pool: {share(means['pool'])}")


def _score_number(select: Artefact | None) -> HeadlineNumber | None:
    means = select.metrics.get("score_mean") if select is not None else None
    if not means:
        return None
    selected, pool = significant(means["selected"]), significant(means["pool"])
    return HeadlineNumber(selected, f"{EVOL_SCORE} of the kept rows", f"of the pool: {pool}")


def _scorer_number(summary: RunSummary) -> HeadlineNumber | None:
    found = {}
    for name in ("complexity", "quality"):
        scorer = summary.base_cell.stages.get(f"train_scorer.{name}")
        heldout = scorer.metric("heldout") if scorer is not None else None
        if heldout is not None:
            found[name] = decimals(heldout["rank_correlation"], 2)
    if not found:
        return None
    note = f"{' / '.join(found)}; 1 is a perfect order"
    return HeadlineNumber(" / ".join(found.values()), "rank correlation of the scorers", note)


def _time_number(summary: RunSummary) -> HeadlineNumber | None:
    artefacts = summary.artefacts().values()
    if not artefacts:
        return None
    total = sum(item.manifest["wall_seconds"] for _, item in artefacts)
    return HeadlineNumber(duration(total), "of wall time", f"summed over {plural(len(artefacts), 'artefact')}")

"""The report's headline and its first paragraph: every word that judges is chosen by the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.report.formats import compared, count, decimals, duration, estimated, plural, share, significant
from deita_train.report.groups import Difference, Group, difference, heldout_loss, heldout_loss_before
from deita_train.report.summary import Artefact, RunSummary

MAX_HEADLINE_NUMBERS = 4


@dataclass(frozen=True)
class HeadlineNumber:
    """A number that matters, what it is, and one line to judge it by."""

    value: str
    label: str
    note: str


def headline(summary: RunSummary, groups: Sequence[Group]) -> list[HeadlineNumber]:
    """At most four numbers, the outcome first."""
    stages = summary.base_cell.stages
    found = [
        _loss_number(groups),
        _kept_number(stages.get("select")),
        _duplicate_number(stages.get("select")) or _score_number(stages.get("select")),
        _scorer_number(summary),
        _time_number(summary),
    ]
    return [number for number in found if number is not None][:MAX_HEADLINE_NUMBERS]


def verdict(summary: RunSummary, groups: Sequence[Group]) -> str:
    """One paragraph on the recipe as written: what was kept, what the model then did, and against what."""
    select = summary.base_cell.stages.get("select")
    sentences = _selection_sentences(select) if select is not None else []
    sentences += _loss_sentences(groups)
    return " ".join(sentences) or "This run has neither selected rows nor evaluated a model yet."


def _loss_number(groups: Sequence[Group]) -> HeadlineNumber | None:
    loss = groups[0].estimate("evaluate", heldout_loss)
    if loss is None:
        return None
    rival = _nearest_rival(groups)
    before = groups[0].estimate("evaluate", heldout_loss_before)
    if rival is not None:
        note = f"{rival.label}: {estimated(rival.estimate('evaluate', heldout_loss))}; lower is better"
    elif before is not None:
        note = f"before SFT: {estimated(before)}; lower is better"
    else:
        note = "nats per token; lower is better"
    return HeadlineNumber(estimated(loss), "held-out loss after SFT", note)


def _kept_number(select: Artefact | None) -> HeadlineNumber | None:
    if select is None:
        return None
    rows_in, rows_out = select.metric("rows_in"), select.metric("rows_out")
    note = f"of {count(rows_in)} in the pool, {share(rows_out / rows_in)}"
    return HeadlineNumber(count(rows_out), "rows kept", note)


def _duplicate_number(select: Artefact | None) -> HeadlineNumber | None:
    means = select.metric("columns").get("near_duplicate") if select is not None else None
    if means is None:
        return None
    note = f"of the pool: {share(means['pool'])}; lower is better"
    return HeadlineNumber(share(means["selected"]), "near-duplicates among the kept rows", note)


def _score_number(select: Artefact | None) -> HeadlineNumber | None:
    means = select.metrics.get("score_mean") if select is not None else None
    if not means:
        return None
    return HeadlineNumber(
        significant(means["selected"]), "mean evol score of the kept rows", f"of the pool: {significant(means['pool'])}"
    )


def _scorer_number(summary: RunSummary) -> HeadlineNumber | None:
    found = {}
    for name in ("complexity", "quality"):
        scorer = summary.base_cell.stages.get(f"train_scorer.{name}")
        heldout = scorer.metric("heldout") if scorer is not None else None
        if heldout is not None:
            found[name] = decimals(heldout["rank_correlation"], 2)
    if not found:
        return None
    return HeadlineNumber(
        " / ".join(found.values()), "rank correlation of the scorers", f"{' / '.join(found)}; 1 is a perfect order"
    )


def _time_number(summary: RunSummary) -> HeadlineNumber | None:
    artefacts = summary.artefacts().values()
    if not artefacts:
        return None
    total = sum(item.manifest["wall_seconds"] for _, item in artefacts)
    return HeadlineNumber(duration(total), "of wall time", f"summed over {plural(len(artefacts), 'artefact')}")


def _selection_sentences(select: Artefact) -> list[str]:
    rows_in, rows_out = select.metric("rows_in"), select.metric("rows_out")
    fraction = f"{count(rows_out)} of the pool's {count(rows_in)} rows ({share(rows_out / rows_in)})"
    sentences = [f"The recipe kept {fraction} with the method {select.metric('method')}."]
    budget = select.metric("budget")
    if budget is not None and rows_out < budget:
        sentences.append(f"That is fewer than its budget of {count(budget)}.")
    means = select.metrics.get("score_mean")
    if means:
        word = compared(means["selected"], means["pool"])
        kept_mean, pool_mean = significant(means["selected"]), significant(means["pool"])
        sentences.append(f"Their mean evol score, {kept_mean}, is {word} the pool's {pool_mean}.")
    copies = select.metric("columns").get("near_duplicate")
    if copies:
        sentences.append(
            f"The share of near-duplicates among them, {share(copies['selected'])}, is "
            f"{compared(copies['selected'], copies['pool'])} the pool's {share(copies['pool'])}."
        )
    return sentences


def _loss_sentences(groups: Sequence[Group]) -> list[str]:
    loss = groups[0].estimate("evaluate", heldout_loss)
    if loss is None:
        return []
    over = f"mean and 95% interval over {plural(loss.n, 'seed')}" if loss.n > 1 else "one seed"
    sentence = f"After SFT the held-out loss is {estimated(loss)} nats per token ({over})"
    before = groups[0].estimate("evaluate", heldout_loss_before)
    if before is not None:
        sentence += f", {compared(loss.mean, before.mean)} the {estimated(before)} before it"
    rival = _nearest_rival(groups)
    return [f"{sentence}."] + ([_rival_sentence(groups, rival)] if rival is not None else [])


def _rival_sentence(groups: Sequence[Group], rival: Group) -> str:
    base, other = (group.estimate("evaluate", heldout_loss) for group in (groups[0], rival))
    assert base is not None and other is not None, "a rival is chosen among groups with a held-out loss"
    gap = difference(base, other)
    evaluated = [group for group in groups if group.values("evaluate", heldout_loss)]
    among = f", the lowest of the {len(evaluated) - 1} other groups" if len(evaluated) > 2 else ""
    if gap.mean == 0:
        return f"It is equal to that of {rival.label}{among}."
    places = 3 if abs(gap.mean) >= 0.005 else 5
    first = f"It is {decimals(abs(gap.mean), places)} {compared(base.mean, other.mean)} that of {rival.label}{among}; "
    return first + _certainty(gap, places)


def _certainty(gap: Difference, places: int) -> str:
    """Whether the seeds tell the two groups apart, by the interval of their difference."""
    if gap.interval is None:
        return "with a single seed on a side, the spread between seeds is unknown and so is whether this would repeat."
    low, high = gap.interval
    interval = f"the 95% interval of the difference, {decimals(low, places)} to {decimals(high, places)} (Welch),"
    if low <= 0 <= high:
        return f"{interval} includes zero, so these seeds do not tell the two apart."
    return f"{interval} excludes zero."


def _nearest_rival(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest held-out loss apart from that of the recipe as written."""
    losses = [(group.estimate("evaluate", heldout_loss), group) for group in groups[1:]]
    evaluated = [(loss.mean, place, group) for place, (loss, group) in enumerate(losses) if loss is not None]
    return min(evaluated)[2] if evaluated and groups[0].values("evaluate", heldout_loss) else None

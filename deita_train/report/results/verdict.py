"""The report's headline and its first paragraph: every word that judges is chosen by the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.budget import SHARE, TOKENS, form_of, in_words
from deita_train.report.results.groups import Difference, Estimate, Group, difference, paired_difference
from deita_train.report.results.quantities import (
    TUNED,
    Measure,
    accuracy_measure,
    loss_measure,
    pair_accuracy,
    reward_accuracy,
    untuned_name,
)
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.tables.formats import compared, count, decimals, duration, estimated, plural, share, significant
from deita_train.selection.trace.fewer_than_budget import sufficient_in_words

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
        _accuracy_number(groups),
        _kept_number(stages.get("select")),
        _duplicate_number(stages.get("select")) or _score_number(stages.get("select")),
        _scorer_number(summary),
        _time_number(summary),
    ]
    return [number for number in found if number is not None][:MAX_HEADLINE_NUMBERS]


def verdict(summary: RunSummary, groups: Sequence[Group]) -> list[str]:
    """Paragraphs on the recipe as written: what failed, what was kept and did, and what the preferences did."""
    select = summary.base_cell.stages.get("select")
    kept = _selection_sentences(select) if select is not None else []
    paragraphs = (_failure_sentences(summary), kept + _loss_sentences(groups), _preference_sentences(groups))
    found = [" ".join(sentences) for sentences in paragraphs if sentences]
    return found or ["This run has neither selected rows nor evaluated a model yet."]


def _failure_sentences(summary: RunSummary) -> list[str]:
    number = len(summary.failed_cells)
    if not number:
        return []
    own = {failure.label for failure in summary.failures if failure.artefact in summary.base_cell.planned.values()}
    sentence = f"{count(number)} of {plural(len(summary.cells), 'cell')} failed"
    if own:
        sentence += f", the recipe as written among them (at {', '.join(sorted(own))})"
    return [f"{sentence}: section Failed cells says why, and no mean counts what is missing."]


def _loss_number(groups: Sequence[Group]) -> HeadlineNumber | None:
    """The held-out loss after SFT, or after DPO where there is no SFT."""
    item = _first(groups[0], [loss_measure(name) for name in TUNED])
    if item is None:
        return None
    loss = groups[0].estimate(item.stage, item.read)
    rival = _nearest_rival(groups, item)
    before = _before(groups[0], item)
    if rival is not None:
        note = f"{rival.label}: {estimated(rival.estimate(item.stage, item.read))}; lower is better"
    elif before is not None:
        note = f"{untuned_name(groups)}: {estimated(before)}; lower is better"
    else:
        note = "nats per token; lower is better"
    return HeadlineNumber(estimated(loss), item.title, note)


def _accuracy_number(groups: Sequence[Group]) -> HeadlineNumber | None:
    """The preference accuracy of the last model."""
    item = _first(groups[0], [accuracy_measure(name) for name in reversed(TUNED)])
    if item is None:
        return None
    stage, name = _model_before(groups[0], "evaluate_pairs", item.stage, untuned_name(groups))
    before = groups[0].estimate(stage, item.read)
    note = f"{name}: {item.text(before)}; higher is better" if before is not None else "higher is better"
    return HeadlineNumber(item.text(groups[0].estimate(item.stage, item.read)), item.title, note)


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


def _fewer(select: Artefact) -> str | None:
    """That a selection found less than its budget, and which threshold would have met it."""
    if select.metric("budget_met"):
        return None
    budget, sufficient = select.metric("budget"), select.metrics.get("sufficient_threshold")
    wanted = in_words(budget)
    if form_of(budget) == SHARE:
        wanted = f"{count(select.metric('budget_wanted'))} ({wanted})"
    elif form_of(budget) == TOKENS:
        wanted = f"{wanted} with {count(select.metric('budget_found'))}"
    found = f"That is fewer than its budget of {wanted}."
    return found + (sufficient_in_words(sufficient) if select.metric("rejected") else "")


def _selection_sentences(select: Artefact) -> list[str]:
    rows_in, rows_out = select.metric("rows_in"), select.metric("rows_out")
    fraction = f"{count(rows_out)} of the pool's {count(rows_in)} rows ({share(rows_out / rows_in)})"
    sentences = [f"The recipe kept {fraction} with the method {select.metric('method')}."]
    fewer = _fewer(select)
    if fewer:
        sentences.append(fewer)
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
    """The held-out loss after SFT (after DPO without one), against the untuned model, its rival and the whole pool."""
    item = _first(groups[0], [loss_measure(name) for name in TUNED])
    if item is None:
        return []
    loss, before = groups[0].estimate(item.stage, item.read), _before(groups[0], item)
    assert loss is not None, "the measure was chosen because this group has it"
    model = TUNED[item.stage.rpartition(".")[2]]
    sentence = f"After {model} the held-out loss is {estimated(loss)} nats per token ({_over(groups[0], item, loss)})"
    if before is not None:
        sentence += f", {compared(loss.mean, before.mean)} the {estimated(before)} before it"
    sentences = [f"{sentence}."]
    rival = _nearest_rival(groups, item)
    if rival is not None:
        sentences.append(_rival_sentence(groups, rival, item))
    whole = [group for group in groups[1:] if group.is_whole_pool and group.values(item.stage, item.read)]
    if whole and whole[0] is not rival:
        sentences.append(_comparison(groups[0], whole[0], item))
    return sentences


def _rival_sentence(groups: Sequence[Group], rival: Group, item: Measure) -> str:
    evaluated = [group for group in groups if group.values(item.stage, item.read)]
    among = f", the lowest of the {len(evaluated) - 1} other groups" if len(evaluated) > 2 else ""
    return _comparison(groups[0], rival, item, among)


def _comparison(base: Group, other: Group, item: Measure, among: str = "") -> str:
    """How far apart the losses of two groups are, and whether their seeds tell them apart."""
    first, second = (group.estimate(item.stage, item.read) for group in (base, other))
    assert first is not None and second is not None, "both groups were chosen because they have a held-out loss"
    gap = difference(first, second)
    name = f"{'training on the whole pool' if other.is_whole_pool else other.label}{among}"
    if gap.mean == 0:
        return f"It is equal to that of {name}."
    places = 3 if abs(gap.mean) >= 0.005 else 5
    text = f"It is {decimals(abs(gap.mean), places)} {compared(first.mean, second.mean)} that of {name}"
    return f"{text}; {_certainty(gap, places)}"


def _certainty(gap: Difference, places: int) -> str:
    """Whether the seeds tell the two groups apart, by the interval of their difference."""
    if gap.interval is None:
        return "with a single seed on a side, the spread between seeds is unknown and so is whether this would repeat."
    low, high = gap.interval
    interval = f"the 95% interval of the difference, {decimals(low, places)} to {decimals(high, places)} (Welch),"
    if low <= 0 <= high:
        return f"{interval} includes zero, so these seeds do not tell the two apart."
    return f"{interval} excludes zero."


def _nearest_rival(groups: Sequence[Group], item: Measure) -> Group | None:
    """The group with the lowest held-out loss apart from that of the recipe as written."""
    losses = [(group.estimate(item.stage, item.read), group) for group in groups[1:]]
    evaluated = [(loss.mean, place, group) for place, (loss, group) in enumerate(losses) if loss is not None]
    return min(evaluated)[2] if evaluated and groups[0].values(item.stage, item.read) else None


def _preference_sentences(groups: Sequence[Group]) -> list[str]:
    """Whether tuning on preferences raised the accuracy on held-out pairs, and what it cost in held-out loss."""
    own, untuned = groups[0], untuned_name(groups)
    item = _first(own, [accuracy_measure(name) for name in reversed(TUNED)])
    if item is None:
        return []
    if item.stage.endswith("sft"):
        found = own.estimate(item.stage, item.read)
        assert found is not None, "the measure was chosen because this group has it"
        over = _over(own, item, found)
        return [f"The chosen answer is the likelier one in {item.text(found)} of the held-out pairs ({over})."]
    stage, name = _model_before(own, "evaluate_pairs", item.stage, untuned)
    sentences = [_accuracy_sentence(own, item, stage, name)]
    rewards = own.estimate(item.stage, reward_accuracy)
    if rewards is not None:
        sentences.append(
            f"Its implicit reward prefers the chosen answer in {estimated(rewards, as_share=True)} of them."
        )
    return sentences + _loss_cost(own, untuned)


def _accuracy_sentence(own: Group, item: Measure, before_stage: str, before_name: str) -> str:
    after, before = own.estimate(item.stage, item.read), own.estimate(before_stage, item.read)
    assert after is not None, "the measure was chosen because this group has it"
    differences = own.paired(item.stage, before_stage, pair_accuracy)
    if before is None or not differences:
        return f"After DPO the held-out preference accuracy is {item.text(after)} ({_over(own, item, after)})."
    gap = paired_difference([100 * value for value in differences])
    values = f"{item.text(after)} against {item.text(before)} {before_name}"
    if gap.interval is None:
        return (
            f"After DPO the held-out preference accuracy is {values}; with a single seed, the spread between seeds is "
            "unknown and so is whether this would repeat."
        )
    low, high = gap.interval
    interval = (
        f"the 95% interval of the paired difference over {plural(len(differences), 'seed')}, {decimals(low, 1)} to "
        f"{decimals(high, 1)} percentage points,"
    )
    if low <= 0 <= high:
        return (
            f"After DPO the held-out preference accuracy is {values}; {interval} includes zero, so these seeds do not "
            "show that DPO changed it."
        )
    verb, side = ("raised", "above") if gap.mean > 0 else ("lowered", "below")
    model = "SFT" if before_stage.endswith("sft") else "untuned"
    return (
        f"DPO {verb} the held-out preference accuracy {side} the {model} model's: {values}; {interval} excludes zero."
    )


def _loss_cost(own: Group, untuned: str) -> list[str]:
    """The held-out loss after DPO beside that of the model before it; nothing where SFT's is not there to compare."""
    item = loss_measure("dpo")
    stage, name = _model_before(own, "evaluate", item.stage, untuned)
    after, before = own.estimate(item.stage, item.read), own.estimate(stage, item.read)
    if after is None or before is None or stage == "evaluate.base":
        return []
    return [f"The held-out loss after DPO is {estimated(after)}, {compared(after.mean, before.mean)} that {name}."]


def _model_before(own: Group, evaluation: str, stage: str, untuned: str) -> tuple[str, str]:
    """Stage and name of the model that the one evaluated in ``stage`` started from."""
    before = f"{evaluation}.sft"
    return (before, "after SFT") if own.artefacts(before) and stage != before else (f"{evaluation}.base", untuned)


def _before(own: Group, item: Measure) -> Estimate | None:
    """The untuned model's value."""
    return None if item.reference is None else own.estimate(item.reference.stage, item.reference.read)


def _first(own: Group, items: Sequence[Measure]) -> Measure | None:
    """The first of ``items`` that the group has."""
    return next((item for item in items if own.values(item.stage, item.read)), None)


def _over(own: Group, item: Measure, found: Estimate) -> str:
    """``mean and 95% interval over 3 seeds``, and how many failed."""
    failed = own.num_planned(item.stage) - len(own.artefacts(item.stage))
    missing = f", {count(failed)} more failed" if failed else ""
    return f"mean and 95% interval over {plural(found.n, 'seed')}{missing}" if found.n > 1 else f"one seed{missing}"

"""The report's first paragraphs: every word that judges is chosen by the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.budget import SHARE, TOKENS, form_of, in_words
from deita_train.number_text import count, decimals, plural, share, significant
from deita_train.report.results.benchmarks import benchmarks_of
from deita_train.report.results.groups import METHOD, Group
from deita_train.report.results.rendered import left_out_lines
from deita_train.report.results.result_measures import (
    TUNED,
    Measure,
    best_rival,
    column_measure,
    first_loss,
    last_accuracy,
    loss_measure,
    model_before,
    pair_accuracy,
    reward_accuracy,
    share_columns,
    untuned_name,
)
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.statistics import Difference, difference, paired_difference
from deita_train.selection.settings import REFERENCES
from deita_train.selection.trace.fewer_than_budget import sufficient_in_words

_UNKNOWN_SPREAD = "the spread between seeds is unknown and so is whether this would repeat."


def verdict(summary: RunSummary, groups: Sequence[Group]) -> list[str]:
    """Paragraphs on the base run: what failed, what was kept and how the models do, what the preferences changed."""
    left_out = [f"{line}." for line in left_out_lines(summary.base_cell)]
    kept = _selection_sentences(summary) + left_out + _loss_sentences(groups)
    paragraphs = (_failure_sentences(summary), kept, _preference_sentences(groups))
    found = [" ".join(sentences) for sentences in paragraphs if sentences]
    if not found and benchmarks_of(summary.base_cell.stages):
        return ["The section Benchmarks has the figures of this run's models."]
    return found or ["This run has neither selected rows nor evaluated a model yet."]


def _failure_sentences(summary: RunSummary) -> list[str]:
    number = len(summary.failed_cells)
    if not number:
        return []
    own = {failure.label for failure in summary.failures if failure.artefact in summary.base_cell.planned.values()}
    sentence = f"{count(number)} of {plural(len(summary.cells), 'cell')} failed"
    if own:
        sentence += f", the base run among them (at {', '.join(sorted(own))})"
    return [f"{sentence}: the section Failed cells says why, and the means leave out what is missing."]


def _selection_sentences(summary: RunSummary) -> list[str]:
    select = summary.base_cell.stages.get("select")
    if select is None:
        return []
    rows_in, rows_out = select.metric("rows_in"), select.metric("rows_out")
    fraction = f"{count(rows_out)} of the pool's {count(rows_in)} rows ({share(rows_out / rows_in)})"
    sentences = [f"The recipe kept {fraction} with the method {select.metric('method')}."]
    if not select.metric("budget_met"):
        sentences.append(_fewer(select))
    means = select.metrics.get("score_mean")
    if means:
        kept, pool = significant(means["selected"]), significant(means["pool"])
        than = _compared(means["selected"], means["pool"])
        sentences.append(f"Their mean evol score, {kept}, is {than} the pool's {pool}.")
    for name in share_columns(summary):
        means = select.metric("columns")[name]
        title, than = column_measure(name, is_share=True).title, _compared(means["selected"], means["pool"])
        sentences.append(f"Their {title}, {share(means['selected'])}, is {than} the pool's {share(means['pool'])}.")
    return sentences


def _fewer(select: Artefact) -> str:
    """That a selection found less than its budget, and which threshold would have met it."""
    budget, sufficient = select.metric("budget"), select.metrics.get("sufficient_threshold")
    wanted = in_words(budget)
    if form_of(budget) == SHARE:
        wanted = f"{count(select.metric('budget_wanted'))} ({wanted})"
    elif form_of(budget) == TOKENS:
        wanted = f"{wanted} with {count(select.metric('budget_found'))}"
    found = f"That is fewer than its budget of {wanted}."
    return found + (sufficient_in_words(sufficient) if select.metric("rejected") else "")


def _loss_sentences(groups: Sequence[Group]) -> list[str]:
    """The held-out loss against that of the untuned model, of the best other group, and of the whole pool."""
    own, item = groups[0], first_loss(groups[0])
    if item is None:
        return []
    loss, before = item.known(own), item.reference_estimate(own)
    model = TUNED[item.stage.rpartition(".")[2]]
    sentence = f"After {model} the held-out loss is {item.text(loss)} nats per token ({_seeds(own, item)})"
    if before is not None and item.text(before) == item.text(loss):
        sentence += ", as before it"
    elif before is not None:
        sentence += f", {_compared(loss.mean, before.mean)} the {item.text(before)} before it"
    sentences = [f"{sentence}."]
    rival = best_rival(groups, item)
    if rival is not None:
        num_others = sum(bool(item.values(group)) for group in groups) - 1
        among = f", the lowest of the {num_others} other groups" if num_others > 1 else ""
        sentences.append(_gap_sentence(own, rival, item, among))
    whole = [group for group in groups[1:] if group.is_whole_pool and item.values(group)]
    plain = [group for group in groups[1:] if _is_reference(group, own) and item.values(group)]
    told = [group for group in (*plain, *whole[:1]) if group is not rival]
    return sentences + [_gap_sentence(own, group, item) for group in told]


def _is_reference(group: Group, own: Group) -> bool:
    """Whether a group selects at random or by length, with everything else as in the base run's."""
    settings, others = ({**of.settings, METHOD: None} for of in (group, own))
    return group.method in REFERENCES and settings == others


def _gap_sentence(own: Group, other: Group, item: Measure, among: str = "") -> str:
    """How far apart the losses of two groups are, and whether their seeds tell them apart."""
    gap = difference(item.known(own), item.known(other))
    name = f"{'training on the whole pool' if other.is_whole_pool else other.label}{among}"
    if gap.mean == 0:
        return f"It is equal to that of {name}."
    places = 3 if abs(gap.mean) >= 0.005 else 5
    text = f"It is {decimals(abs(gap.mean), places)} {_compared(gap.mean, 0)} that of {name}"
    if gap.interval is None:
        return f"{text}; with a single seed on a side, {_UNKNOWN_SPREAD}"
    text += f"; the 95% interval of the difference, {_interval(gap, places)} (Welch),"
    if gap.includes_zero:
        return f"{text} includes zero, so these seeds do not tell the two apart."
    return f"{text} excludes zero."


def _preference_sentences(groups: Sequence[Group]) -> list[str]:
    """Whether tuning on preferences changed the accuracy on held-out pairs, and what it cost in held-out loss."""
    own, untuned, item = groups[0], untuned_name(groups), last_accuracy(groups[0])
    if item is None:
        return []
    if item.stage.endswith("sft"):
        text = item.text(item.known(own))
        return [f"The chosen answer is the likelier one in {text} of the held-out pairs ({_seeds(own, item)})."]
    sentences = [_accuracy_sentence(own, item, *model_before(own, item.stage, untuned))]
    rewards = own.estimate(item.stage, reward_accuracy)
    if rewards is not None:
        sentences.append(f"Its implicit reward prefers the chosen answer in {rewards.share_text()} of the pairs.")
    return sentences + _loss_cost(own, untuned)


def _accuracy_sentence(own: Group, item: Measure, before_stage: str, before_name: str) -> str:
    after, before = item.known(own), own.estimate(before_stage, item.read)
    differences = own.paired(item.stage, before_stage, pair_accuracy)
    text = f"After DPO the held-out preference accuracy is {item.text(after)}"
    if before is None or not differences:
        return f"{text} ({_seeds(own, item)})."
    against = f"against {item.text(before)} {before_name}"
    if item.text(after) == item.text(before) and not any(differences):
        return f"After DPO the held-out preference accuracy is unchanged at {item.text(after)} ({_seeds(own, item)})."
    gap = paired_difference([100 * value for value in differences])
    if gap.interval is None:
        return f"{text} {against}; with a single seed, {_UNKNOWN_SPREAD}"
    interval = (
        f"the 95% interval of the paired difference over {plural(len(differences), 'seed')}, {_interval(gap, 1)} "
        "percentage points,"
    )
    if gap.includes_zero:
        return f"{text} {against}; {interval} includes zero, so these seeds do not show that DPO changed it."
    verb, side = ("raised", "above") if gap.mean > 0 else ("lowered", "below")
    model = "SFT" if before_stage.endswith("sft") else "untuned"
    return (
        f"DPO {verb} the held-out preference accuracy {side} the {model} model's: {item.text(after)} {against}; "
        f"{interval} excludes zero."
    )


def _loss_cost(own: Group, untuned: str) -> list[str]:
    """The held-out loss after DPO beside that after SFT; nothing without both."""
    item = loss_measure("dpo")
    stage, name = model_before(own, item.stage, untuned)
    after, before = item.estimate(own), own.estimate(stage, item.read)
    if after is None or before is None or stage == "evaluate.base":
        return []
    return [f"The held-out loss after DPO is {item.text(after)}, {_compared(after.mean, before.mean)} that {name}."]


def _compared(value: float, reference: float) -> str:
    if value == reference:
        return "equal to"
    return "higher than" if value > reference else "lower than"


def _interval(gap: Difference, places: int) -> str:
    assert gap.interval is not None, "asked for where there are several seeds"
    return " to ".join(decimals(end, places) for end in gap.interval)


def _seeds(own: Group, item: Measure) -> str:
    """`mean and 95% interval over 3 seeds`, and how many failed."""
    number, failed = item.known(own).n, own.num_planned(item.stage) - len(own.artefacts(item.stage))
    missing = f", {count(failed)} more failed" if failed else ""
    return f"mean and 95% interval over {plural(number, 'seed')}{missing}" if number > 1 else f"one seed{missing}"

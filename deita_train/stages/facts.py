"""A line on the metrics of a stage, for the commands that run one stage. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from deita_train.number_text import plural


def of_scores(metrics: Mapping[str, Any]) -> str:
    """How many turns were scored, and why others were not."""
    nulls = ", ".join(f"{reason} {number:,}" for reason, number in metrics["nulls"].items() if number)
    without = f"{sum(metrics['nulls'].values()):,} without a score{f' ({nulls})' if nulls else ''}"
    scored = f"{metrics['scored']:,} turns scored, {without}"
    cut = f"{metrics['shortened']:,} rows shortened to max_length{_found_again(metrics, 'turns')}"
    suspected = (
        f"; only {metrics['digit_mass_mean']:.1%} of the probability is on the digits: this looks like a wrong model"
        if metrics["wrong_model_suspected"]
        else ""
    )
    return f"{scored}; {cut}{suspected}"


def of_embeddings(metrics: Mapping[str, Any]) -> str:
    """Their dimensions, and how many rows were cut."""
    return (
        f"{metrics['dimensions']:,} dimensions; {metrics['truncated']:,} of {metrics['rows']:,} rows cut at max_length"
        f"{_found_again(metrics, 'rows')}"
    )


NOT_REACHED = "not_reached"
"""Why a row has no embedding: the walk ended before it."""
NOT_RANKED = "not_ranked"
"""Why a row has no embedding: the selection cannot rank it."""
SAVED = (NOT_REACHED, NOT_RANKED)


def saved_rows(manifest: Any) -> str | None:
    """How many rows an embedding along the walk embedded and how many it saved; None where it saved none."""
    saved = sum(manifest.drops.get(reason, 0) for reason in SAVED)
    return f"{manifest.rows_out:,} of {manifest.rows_in:,} rows embedded, {saved:,} saved" if saved else None


def _found_again(metrics: Mapping[str, Any], unit: str) -> str:
    return (
        f"; {metrics['rows_reused']:,} {unit} were computed before, in another pool" if metrics["rows_reused"] else ""
    )


def of_scorer_training(metrics: Mapping[str, Any]) -> str:
    """How well the scorer does on held-out rows."""
    heldout = metrics["heldout"]
    if heldout is None:
        return "no held-out rows to measure it on (--heldout)"
    correlation, error = heldout["rank_correlation"], heldout["mean_absolute_error"]
    measured = f"{heldout['rows']:,} held-out rows: rank correlation {correlation:.3f}, mean absolute error {error:.3f}"
    return f"{measured}, bias {heldout['bias']:+.3f}, calibration slope {heldout['calibration_slope']:.3f}"


def of_heldout_rows(metrics: Mapping[str, Any]) -> str:
    """The loss on held-out conversations."""
    heldout = metrics["heldout"]
    return (
        f"loss per token {heldout['loss_per_token']:.4f}, perplexity {heldout['perplexity']:.3f} over "
        f"{heldout['tokens']:,} tokens of the assistant in {heldout['rows']:,} rows"
    )


def of_pairs(metrics: Mapping[str, Any]) -> str:
    """How often the chosen answer is the likelier one."""
    pairs = metrics["pairs"]
    return f"the chosen answer is the likelier one in {pairs['accuracy']:.1%} of {pairs['rows']:,} pairs"


def of_perplexities(metrics: Mapping[str, Any]) -> str:
    """The means over the rows that were measured."""
    nulls = ", ".join(f"{reason} {number:,}" for reason, number in metrics["nulls"].items())
    ifd = metrics["mean_ifd"]
    return (
        f"{metrics['measured']:,} of {metrics['rows']:,} rows measured{f' ({nulls})' if nulls else ''}; mean "
        f"perplexity {metrics['mean_perplexity']:.3f}{'' if ifd is None else f', mean IFD {ifd:.3f}'}"
    )


def of_contamination(metrics: Mapping[str, Any]) -> str:
    """How many rows repeat a question, and of which benchmarks."""
    found = {name: of["rows"] for name, of in metrics["benchmarks"].items() if of["rows"]}
    rows = plural(metrics["rows"], "row")
    return f"{metrics['found']:,} of {rows} repeat a benchmark's question{_by_reason('rows by benchmark', found)}"


def of_evolutions(metrics: Mapping[str, Any]) -> str:
    """How many evolved texts were kept, why others were not, and what was asked."""
    return (
        f"{metrics['kept']:,} of {metrics['evolutions']:,} evolved texts of {metrics['seeds']:,} seeds kept"
        f"{_by_reason('dropped', metrics['drops'])}; {_asked(metrics)}"
    )


def of_rankings(metrics: Mapping[str, Any]) -> str:
    """How many labels the rankings gave, what was asked, and the warnings by name."""
    warnings = ", ".join(warning["name"] for warning in metrics["warnings"])
    rows = sum(metrics["splits"].values())
    return (
        f"{rows:,} labelled rows of {metrics['seeds_ranked']:,} of {metrics['seeds']:,} seeds"
        f"{_by_reason('seeds dropped', metrics['seeds_dropped'])}; {_asked(metrics)}"
        f"{f'; warnings: {warnings}' if warnings else ''}"
    )


def warnings_of_rankings(metrics: Mapping[str, Any]) -> list[str]:
    """What is suspicious about the judge, each by its name."""
    return [f"{warning['name']}: {warning['text']}" for warning in metrics["warnings"]]


def of_direct_scores(metrics: Mapping[str, Any]) -> str:
    """How many rows were rated, why others were not, and what was asked."""
    return f"{_answered(metrics)} rated, mean score {metrics['mean']:.2f}; {_asked(metrics)}"


def of_tags(metrics: Mapping[str, Any]) -> str:
    """How many rows were tagged, with how many different tags, and what was asked."""
    return f"{_answered(metrics)} tagged, {plural(metrics['tags'], 'different tag')}; {_asked(metrics)}"


def of_judgements(metrics: Mapping[str, Any]) -> str:
    """The headline figure with its interval, what has no score, and what was asked."""
    name, first = next(iter(metrics["results"].items()))
    percent = "%" if first["unit"] == "percent" else ""
    interval = "" if first["low"] is None else f" ({first['low']:.2f} to {first['high']:.2f})"
    return (
        f"{metrics['title']}: {name} {first['value']:.2f}{percent}{interval} over "
        f"{plural(first['questions'], 'question')}{_by_reason('without a score', metrics['without_score'])}; "
        f"{_asked(metrics)}"
    )


def of_questions(metrics: Mapping[str, Any]) -> str:
    """How many questions and turns there are, and how many have a reference answer."""
    questions = plural(metrics["rows_out"], "question")
    return f"{questions} with {plural(metrics['turns'], 'turn')}, {metrics['with_reference']:,} with a reference answer"


def of_answers(metrics: Mapping[str, Any]) -> str:
    """How many answers there are, how long they are, and what is suspicious about them."""
    answers, asked = metrics["answers"], metrics["asked"]
    missing = _by_reason("without", metrics["unanswered"])
    if not answers:
        return f"0 of {plural(asked, 'answer')}{missing}"
    repeated = metrics["seq_rep_4"]
    words = "" if repeated is None else f", {repeated:.1%} of their 4-grams repeated"
    return (
        f"{answers:,} of {plural(asked, 'answer')}{missing}, of {metrics['mean_tokens']:.0f} tokens on average; "
        f"{metrics['empty_share']:.1%} empty, {metrics['truncated_share']:.1%} cut at the limit{words}"
        f"{f'; {_asked(metrics)}' if 'spending' in metrics else ''}"
    )


def _answered(metrics: Mapping[str, Any]) -> str:
    """`9 of 10 rows (without a value: no_scores 1)`."""
    rows, nulls = metrics["rows"], metrics["nulls"]
    return f"{rows - sum(nulls.values()):,} of {rows:,} rows{_by_reason('without a value', nulls)}"


def _by_reason(words: str, numbers: Mapping[str, int]) -> str:
    """` (dropped: copy 4, empty 1)`; empty where there is no reason."""
    found = ", ".join(f"{reason} {number:,}" for reason, number in numbers.items())
    return f" ({words}: {found})" if found else ""


def _asked(metrics: Mapping[str, Any]) -> str:
    """Calls, tokens and, with a price, their cost; and how many answers were there before."""
    spending = metrics["spending"]
    tokens, stored = spending["prompt_tokens"] + spending["completion_tokens"], spending["answered_from_store"]
    about = "about " if spending["answers_with_estimated_tokens"] else ""
    cost = "" if spending["cost"] is None else f", cost {about}{spending['cost']:,.4f}"
    kept = f", {plural(stored, 'answer')} from before" if stored else ""
    return f"{plural(spending['calls'], 'call')}, {about}{tokens:,} tokens{cost}{kept}"


def of_tasks(metrics: Mapping[str, Any]) -> str:
    """The benchmark's figures by name."""
    figures = ", ".join(f"{name} {result['value']:.4f}" for name, result in metrics["results"].items())
    return f"{figures} over {sum(task['questions'] for task in metrics['tasks'].values()):,} questions"

"""Tables of the labels that a chat model made: what was dropped, how versions score, the judge, examples, the cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.llm.spending import money_text
from deita_train.number_text import ABSENT, count, decimals, share
from deita_train.report.results.summary import Artefact
from deita_train.report.tables.scorer_tables import SCORERS
from deita_train.table import CODE, PROSE, Column, Table, numbers, words

ASKING = (*(f"{stage}.{name}" for name in SCORERS for stage in ("evolve", "rank")), "direct_score", "instag")
"""The labels of the stages that ask a chat model, in the order of reading."""

_LABELS = (
    "A seed is ranked if at least one of its rankings is usable. A ranking that stays unusable after all its attempts "
    "is dropped. A row is a version of a ranked seed, with its mean score to the nearest whole number as its label; "
    "all versions of a seed are either for training or held out."
)
_DROPS = (
    "Shares are of the evolved texts that were asked for, of all answers of the judge (an unusable one is asked for "
    "again), of the rankings, of the seeds, and of the versions that were not eliminated."
)
_STEPS = (
    "Step 0 is the seed. Means are over the versions of the ranked seeds; if the operations work and the judge sees "
    "it, they rise."
)
_SCORES = "Ranked versions by their label. A scorer learns little from labels that are nearly all the same."
_JUDGE = (
    "From one version of a chain to the next: in how many of the steps the score does not fall, and in how many it "
    "rises, each beside its value if the scores of each chain were shuffled. Kendall's W says how far rankings of the "
    "same versions in several orders agree: 1 where they are the same; a dash means that there was one order. The "
    "place effect is the mean correlation of a score with the place in the list, 0 for a judge that reads."
)
_OPERATIONS = (
    "The mean rise is that of the score from the version before. An operation that does not raise the score costs "
    "calls and adds noise; operations: in the recipe leaves it out."
)
_SPENDING = (
    "Calls and tokens are those of the time when the stage was carried out, repetitions included. Answers from before "
    "were kept in the runs folder and not asked again."
)
_EXAMPLES = (
    "Drawn by the ids of the seeds and not picked for their scores, with the versions that were dropped. If you would "
    "not order the texts as the judge did, the figures above do not matter. A long text is cut."
)


@dataclass(frozen=True)
class Ranked:
    """The chains of a dimension and their rankings."""

    dimension: str
    chains: Artefact
    ranks: Artefact


def label_tables(ranked: Iterable[Ranked]) -> list[Table]:
    """The tables on all ranked dimensions, and then the examples of each."""
    of_all = list(ranked)
    if not of_all:
        return []
    tables = (
        _label_table(of_all),
        _drop_table(of_all),
        _step_table(of_all),
        _score_table(of_all),
        _judge_table(of_all),
        _operation_table(of_all),
        *map(_example_table, of_all),
    )
    return [table for table in tables if table.rows]


def spending_table(stages: Mapping[str, Artefact]) -> Table:
    """What each stage asked; with its cost where the recipe states a price."""
    found = {label: stages[label].metric("spending") for label in ASKING if label in stages}
    priced = any(spending["cost"] is not None for spending in found.values())
    titles = ("calls", "answers", "answers from before", "tokens read", "tokens written")
    columns = (*words("stage"), *numbers(*titles, *(("cost", "cost before") if priced else ())))
    rows = tuple((label, *_spending_values(spending, priced)) for label, spending in found.items())
    estimated = any(spending["answers_with_estimated_tokens"] for spending in found.values())
    note = _SPENDING
    note += " The cost before is what those answers took when they were asked." if priced else ""
    note += " Where the server told no tokens, they are an estimate." if estimated else ""
    return Table(columns, rows, "What was asked", note)


def _label_table(ranked: list[Ranked]) -> Table:
    titles = ("seeds", "seeds ranked", "evolved texts", "kept", "usable rankings", "rows", "train", "held out")
    rows = tuple((of.dimension, *_label_values(of)) for of in ranked)
    return Table((*words("dimension"), *numbers(*titles)), rows, "Labels", _LABELS)


def _label_values(of: Ranked) -> tuple[str, ...]:
    splits = of.ranks.metric("splits")
    return (
        count(of.ranks.metric("seeds")),
        count(of.ranks.metric("seeds_ranked")),
        count(of.chains.metric("evolutions")),
        count(of.chains.metric("kept")),
        f"{count(_usable(of))} of {count(_rounds(of))}",
        count(of.ranks.manifest["rows_out"]),
        count(splits.get("train", 0)),
        count(splits.get("heldout", 0)),
    )


def _usable(of: Ranked) -> int:
    """Rankings with an answer that could be used; each ends with it, so they are as many as these answers."""
    return int(of.ranks.metric("answers") - sum(of.ranks.metric("answers_unusable").values()))


def _rounds(of: Ranked) -> int:
    return _usable(of) + int(sum(of.ranks.metric("rounds_dropped").values()))


def _drop_table(ranked: list[Ranked]) -> Table:
    rows = tuple(
        (of.dimension, what, reason, count(number), share(number / whole))
        for of in ranked
        for what, drops, whole in _drops(of)
        for reason, number in drops.items()
        if number
    )
    columns = (*words("dimension", "what was dropped", "reason"), *numbers("number", "share"))
    return Table(columns, rows, "Drops by reason", _DROPS)


def _drops(of: Ranked) -> list[tuple[str, Mapping[str, int], int]]:
    """What is dropped, how often for which reason, and how many there were."""
    metric, manifest = of.ranks.metric, of.ranks.manifest
    return [
        ("evolved text", of.chains.metric("drops"), of.chains.metric("evolutions")),
        ("answer of the judge", metric("answers_unusable"), metric("answers")),
        ("ranking", metric("rounds_dropped"), _rounds(of)),
        ("seed", metric("seeds_dropped"), metric("seeds")),
        ("labelled text", manifest["drops"], manifest["rows_in"]),
    ]


def _step_table(ranked: list[Ranked]) -> Table:
    rows = tuple(
        (of.dimension, count(step["step"]), count(step["versions"]), decimals(step["mean_score"], 2))
        for of in ranked
        for step in of.ranks.metric("score_by_step")
    )
    columns = (*words("dimension"), *numbers("step", "versions", "mean score"))
    return Table(columns, rows, "Mean score by step", _STEPS)


def _score_table(ranked: list[Ranked]) -> Table:
    levels = list(ranked[0].ranks.metric("scores"))
    rows = []
    for of in ranked:
        scores = of.ranks.metric("scores")
        whole = max(1, sum(scores.values()))
        rows.append((of.dimension, *(f"{count(scores[level])} ({share(scores[level] / whole)})" for level in levels)))
    columns = (*words("dimension"), *numbers(*(f"score {level}" for level in levels)))
    return Table(columns, tuple(rows), "Distribution of scores", _SCORES)


def _judge_table(ranked: list[Ranked]) -> Table:
    titles = (
        "steps", "not falling", "not falling by chance", "rising", "rising by chance", "Kendall's W", "W by chance",
        "place effect",
    )  # fmt: skip
    rows = tuple((of.dimension, *_judge_values(of.ranks)) for of in ranked)
    return Table((*words("dimension"), *numbers(*titles)), rows, "Whether the judge can be believed", _JUDGE)


def _judge_values(ranks: Artefact) -> tuple[str, ...]:
    moves, orders, place = (ranks.metric(name) or {} for name in ("monotonicity", "agreement", "place_effect"))
    shares = ("share_not_falling", "chance_not_falling", "share_rising", "chance_rising")
    return (
        count(moves.get("steps")),
        *(share(moves.get(name)) for name in shares),
        *(decimals(orders.get(name), 2) for name in ("kendalls_w", "chance")),
        decimals(place.get("correlation"), 2),
    )


def _operation_table(ranked: list[Ranked]) -> Table:
    rows = []
    for of in ranked:
        rises = of.ranks.metric("operations")
        for name, made in of.chains.metric("operations").items():
            rise = rises.get(name, {"versions": 0, "mean_rise": None})
            numbers_of = (made["evolutions"], made["kept"], rise["versions"])
            rows.append((of.dimension, name, *map(count, numbers_of), decimals(rise["mean_rise"], 2)))
    columns = (*words("dimension", "operation"), *numbers("evolved texts", "kept", "ranked", "mean rise"))
    return Table(columns, tuple(rows), "Operations", _OPERATIONS)


def _example_table(of: Ranked) -> Table:
    """The chains one below the other, each version with the judge's score."""
    columns = (
        Column("seed", CODE),
        *numbers("step"),
        *words("what it is"),
        *numbers("mean score", "label"),
        Column("text", PROSE),
    )
    rows = tuple(row for example in of.ranks.metric("examples") for row in _example_rows(example))
    return Table(columns, rows, f"Examples of {of.dimension}", _EXAMPLES)


def _example_rows(example: Mapping[str, Any]) -> list[tuple[str, ...]]:
    seed_id, question = example["seed_id"], example["instruction"]
    rows: list[tuple[str, ...]] = []
    if question is not None:
        rows.append((seed_id, ABSENT, "question", ABSENT, ABSENT, question.strip()))
    for version in example["versions"]:
        score, target = decimals(version["score"], 2), count(version["target"])
        rows.append((seed_id, count(version["step"]), _origin(version), score, target, version["text"].strip()))
    return rows


def _origin(version: Mapping[str, Any]) -> str:
    """`seed`, `deepen`, `deepen, dropped: copy`."""
    name = version["operation"] or "seed"
    return name if version["status"] == "ok" else f"{name}, dropped: {version['status']}"


def _spending_values(spending: Mapping[str, Any], priced: bool) -> tuple[str, ...]:
    names = ("calls", "answered", "answered_from_store", "prompt_tokens", "completion_tokens")
    costs = (spending["cost"], spending["earlier_cost"]) if priced else ()
    return (
        *(count(spending[name]) for name in names),
        *(ABSENT if cost is None else money_text(cost) for cost in costs),
    )

"""The stage `select_pairs`: pairs by their margin under the reference or by a reward of the data."""

import json
import math
import random

import datasets
import numpy as np
import pytest
from pydantic import ValidationError
from tiny_recipe import data_lines, dpo_recipe, graph, no_gpus, plan  # noqa: F401

from deita_train.data.pair_selection import pair_margins, ranked_pairs
from deita_train.errors import UserError
from deita_train.recipe.data_sections import TrainingPreferences
from deita_train.stages.checks import check_rows, content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import select_pairs

IDS = list("abcdef")
# Log-probabilities of chosen and rejected answers, tokens of both; e is not rendered, and f's answer is cut off whole.
REFERENCE = {
    "a": (-10.0, -12.0, 3, 4),
    "b": (-20.0, -15.0, 3, 4),
    "c": (-8.0, -8.5, 3, 4),
    "d": (-9.0, -11.0, 3, 4),
    "f": (0.0, -7.0, 0, 4),
}
MARGINS = {"a": 2.0, "b": -5.0, "c": 0.5, "d": 2.0}
SCORES = {"score_chosen": [5.0, 4.0, None, 3.0, 2.0, 1.0], "score_rejected": [1.0, 3.5, 1.0, math.inf, 3.0, 0.5]}


@pytest.fixture
def carry_out(tmp_path):
    """A function that selects from the pairs above, and gives the result, the kept ids and the trace by id."""
    rows = {"id": IDS, "prompt": [[{"role": "user", "content": "q"}]] * 6, "chosen": ["y"] * 6, "rejected": ["n"] * 6}
    datasets.Dataset.from_dict({**rows, **SCORES}).save_to_disk(str(tmp_path / "pairs" / "data"))
    (tmp_path / "pairs" / "manifest.json").write_text(json.dumps({"rows_out": 6}))
    names = ("chosen_log_prob", "rejected_log_prob", "chosen_tokens", "rejected_tokens")
    table = [{"id": row_id, **dict(zip(names, REFERENCE[row_id], strict=True))} for row_id in reversed(REFERENCE)]
    datasets.Dataset.from_list(table).save_to_disk(str(tmp_path / "reference" / "data"))

    def run(by, order, budget):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        parents = {"data": tmp_path / "pairs"} | ({"reference": tmp_path / "reference"} if by == "margin" else {})
        identity = {"by": by, "order": order, "budget": budget}
        context = StageContext("select_pairs", "dpo_pairs", identity, {}, parents, work, 0, 1, Progress(None))
        result = select_pairs.run(context)
        check_rows(context, {"rows_in": result.rows_in, "rows_out": result.rows_out, "drops": result.drops})
        assert content_digest(work)
        kept = datasets.load_from_disk(str(context.data_dir))
        assert kept.column_names == ["id", "prompt", "chosen", "rejected", *SCORES]
        trace = {row["id"]: row for row in datasets.load_from_disk(str(work / "trace"))}
        return result, list(kept["id"]), trace

    return run


@pytest.mark.parametrize(
    ("order", "ranked"),
    [("largest", ["a", "d", "c", "b"]), ("smallest", ["b", "c", "a", "d"])],  # a and d tie
)
def test_the_margin_is_the_references(carry_out, order, ranked):
    for budget in (1, 2, 3, 4):
        result, kept, trace = carry_out("margin", order, budget)
        assert kept == sorted(ranked[:budget])
        by_rank = {row["selection_rank"]: row_id for row_id, row in trace.items() if row["selection_rank"] is not None}
        assert [by_rank[rank] for rank in range(budget)] == ranked[:budget]
        left = {"not_rendered": 1, "no_answer_within_max_length": 1, "not_selected": 4 - budget}
        assert result.drops == {reason: number for reason, number in left.items() if number}
    assert {row_id: row["selection_score"] for row_id, row in trace.items()} == {**MARGINS, "e": None, "f": None}
    assert (trace["e"]["not_ranked"], trace["f"]["not_ranked"]) == ("not_rendered", "no_answer_within_max_length")
    assert result.metrics["margin"] == {"selected": pytest.approx(-0.125), "all": pytest.approx(-0.125)}


def test_a_reward_of_the_data(carry_out):
    # 4, 0.5, none, none (not finite), -1, 0.5
    result, kept, trace = carry_out("score", "largest", 2)
    assert kept == ["a", "b"]
    assert result.drops == {"no_value": 2, "not_selected": 2}
    assert [trace[row_id]["selection_score"] for row_id in IDS] == [4.0, 0.5, None, None, -1.0, 0.5]
    assert carry_out("score", "smallest", 2)[1] == ["b", "e"]
    assert carry_out("score_chosen", "smallest", 2)[1] == ["e", "f"]
    assert carry_out("score", "largest", {"share": 0.5})[1] == ["a", "b", "f"]


def test_a_budget_beyond_the_pairs_with_a_margin_is_refused(carry_out):
    with pytest.raises(UserError) as caught:
        carry_out("score", "largest", 5)
    assert str(caught.value) == (
        "dpo_pairs: the budget is 5 pairs, and only 4 of 6 have a margin (no_value: 2). Lower "
        "dpo.preferences.select.budget, or complete the data."
    )


def test_columns_that_are_not_there_or_hold_no_numbers_are_refused(carry_out):
    with pytest.raises(UserError, match=r"by: reward: the pairs have neither a column 'reward' nor reward_chosen and "):
        carry_out("reward", "largest", 1)
    with pytest.raises(UserError, match="column 'chosen' of the pairs holds something else than a number"):
        carry_out("chosen", "largest", 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_ranking_is_that_of_a_plain_sort(seed):
    rng = random.Random(seed)
    ids = [f"p{number}" for number in rng.sample(range(1000), 40)]
    chosen = [rng.choice([None, *range(6)]) for _ in ids]
    rejected = [rng.choice([None, *range(6)]) for _ in ids]
    pairs = datasets.Dataset.from_dict({"id": ids, "chosen_r": chosen, "rejected_r": rejected})
    known = [
        (good - bad, row_id)
        for row_id, good, bad in zip(ids, chosen, rejected, strict=True)
        if good is not None and bad is not None
    ]
    margins = pair_margins(pairs, "r")
    largest = [row_id for _, row_id in sorted(known, key=lambda pair: (-pair[0], pair[1]))]
    assert [ids[place] for place in ranked_pairs(ids, margins, "largest")] == largest
    assert [ids[place] for place in ranked_pairs(ids, margins, "smallest")] == [row_id for _, row_id in sorted(known)]
    assert np.isnan(margins).sum() == len(ids) - len(known)


@pytest.mark.usefixtures("no_gpus")
def test_the_reference_scores_all_pairs_for_a_margin_and_only_the_kept_ones_for_a_reward(tmp_path):
    plain = graph(tmp_path, dpo_recipe())
    select = {"order": "largest", "budget": 5}
    by_margin = graph(tmp_path, dpo_recipe(dpo__preferences__select={"by": "margin", **select}))
    pairs = by_margin["dpo_pairs"]
    assert {name: node.label for name, node in pairs.parents.items()} == {"data": "dpo_data", "reference": "reference"}
    assert pairs.hashed == {"by": "margin", **select}
    assert by_margin["reference"].key == plain["reference"].key and by_margin["dpo_data"].key == plain["dpo_data"].key
    assert by_margin["dpo"].parents["data"] is pairs and by_margin["dpo"].key != plain["dpo"].key
    by_reward = graph(tmp_path, dpo_recipe(dpo__preferences__select={"by": "score", **select}))
    assert by_reward["reference"].parents["data"] is by_reward["dpo"].parents["data"] is by_reward["dpo_pairs"]
    assert list(by_reward["dpo_pairs"].parents) == ["data"]
    assert "dpo_pairs" not in plain


@pytest.mark.parametrize(
    "select",
    [
        {"by": "margin", "budget": 5},
        {"by": "margin", "order": "largest"},
        {"by": "margin", "order": "middle", "budget": 5},
        {"by": "margin", "order": "largest", "budget": 0},
        {"by": "margin", "order": "largest", "budget": {"share": 2.0}},
    ],
)
def test_what_a_selection_of_pairs_must_state(select):
    with pytest.raises(ValidationError):
        TrainingPreferences.model_validate({"dataset": "x.jsonl", "select": select})


@pytest.mark.usefixtures("no_gpus")
def test_validate_counts_the_pairs_that_can_be_ranked(tmp_path):
    rows = [
        {"prompt": f"q{n}", "chosen": "yes", "rejected": "no", "margin_of_mine": [0.5, None][n % 2]} for n in range(9)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def told(by, budget):
        select = {"by": by, "order": "smallest", "budget": budget}
        preferences = {"dataset": str(tmp_path / "pairs.jsonl"), "select": select}
        lines = data_lines(plan(tmp_path, dpo_recipe(dpo__preferences=preferences)))
        return [line for line in lines if line.startswith("dpo_pairs")]

    assert told("margin_of_mine", 5) == ["dpo_pairs: 5 of 9 pairs are kept, 5 can be ranked"]
    assert told("margin", {"share": 0.5}) == ["dpo_pairs: 4 of 9 pairs are kept, 9 can be ranked"]
    with pytest.raises(
        UserError, match=r"dpo_pairs: the budget is 6 pairs, and only 5 of 9 have a margin \(no_value: 4"
    ):
        told("margin_of_mine", 6)
    with pytest.raises(UserError, match="the pairs have neither a column 'reward' nor"):
        told("reward", 1)

import json

from judged import chain_of, ranking_of, rankings_of_three, stepped, three_chains

from deita_train.evolve.summary import chain_examples, evolve_summary, rank_summary

CHAINS = three_chains("a seed") | {
    "d": stepped("d", "a seed", ("deepen", "ok"), ("deepen", "ok"), ("deepen", "ok")),
}
RANKINGS = [
    *rankings_of_three(),
    ranking_of("d", [0] * 4, 0, 0, "no_scores"),
    ranking_of("d", [0] * 4, 0, 1, "missing_item"),
    ranking_of("d", [0] * 4, 1, 0, "cut_off"),
]


def test_what_became_of_the_evolutions():
    assert evolve_summary(CHAINS.values()) == {
        "seeds": 4,
        "evolutions": 12,
        "kept": 6,
        "drops": {"copy": 4, "empty": 1, "failed_deadline": 1},
        "good_versions": {"1": 1, "2": 1, "3": 1, "4": 1},
        "operations": {
            "concretize": {"evolutions": 3, "kept": 1, "drops": {"copy": 1, "empty": 1}},
            "deepen": {"evolutions": 9, "kept": 5, "drops": {"copy": 3, "failed_deadline": 1}},
        },
    }


def test_what_the_rankings_say():
    found = rank_summary(CHAINS, RANKINGS)
    assert (found["seeds"], found["seeds_ranked"]) == (4, 2)
    assert found["seeds_dropped"] == {"cut_off": 1, "nothing_to_compare": 1}
    assert found["answers"] == 8
    assert found["answers_unusable"] == {"all_tied": 1, "cut_off": 1, "missing_item": 1, "no_scores": 2}
    assert found["rounds_dropped"] == {"cut_off": 1, "missing_item": 1, "no_scores": 1}
    # Means of a: 1, 3.5, 5.5, so levels 1, 4, 6; of b: 2, 1.
    assert found["scores"] == {"1": 2, "2": 1, "3": 0, "4": 1, "5": 0, "6": 1}
    assert found["score_by_step"] == [
        {"step": 0, "versions": 2, "mean_score": 1.5},
        {"step": 1, "versions": 2, "mean_score": 2.25},
        {"step": 3, "versions": 1, "mean_score": 5.5},
    ]
    # a rises by 2.5 and 2.0 by deepening, b falls by 1 by a concrete case.
    assert found["operations"] == {
        "concretize": {"versions": 1, "mean_rise": -1.0},
        "deepen": {"versions": 2, "mean_rise": 2.25},
    }
    assert (found["monotonicity"]["steps"], found["monotonicity"]["share_rising"]) == (3, 2 / 3)
    assert (found["agreement"]["seeds"], found["agreement"]["kendalls_w"]) == (1, 1.0)
    assert found["place_effect"]["rankings"] == 3
    assert [warning["name"] for warning in found["warnings"]] == ["judge_is_guessing", "orders_do_not_agree"]


def test_a_summary_is_json():
    assert json.loads(json.dumps(rank_summary(CHAINS, RANKINGS))) == rank_summary(CHAINS, RANKINGS)
    assert json.loads(json.dumps(chain_examples(CHAINS, RANKINGS))) == chain_examples(CHAINS, RANKINGS)


def test_without_rankings_there_is_nothing_to_measure():
    found = rank_summary({"c": CHAINS["c"]}, [])
    assert found["monotonicity"] is found["agreement"] is found["place_effect"] is None
    assert (found["seeds_dropped"], found["warnings"]) == ({"nothing_to_compare": 1}, [])
    assert evolve_summary([])["evolutions"] == 0 and chain_examples({"c": CHAINS["c"]}, []) == []


def test_an_example_shows_the_whole_chain():
    (example,) = [found for found in chain_examples(CHAINS, RANKINGS) if found["seed_id"] == "a"]
    assert example["instruction"] is None
    assert example["versions"] == [
        {"step": 0, "operation": None, "status": "ok", "text": "a seed", "score": 1.0, "target": 1},
        {"step": 1, "operation": "deepen", "status": "ok", "text": "a 1", "score": 3.5, "target": 4},
        {"step": 2, "operation": "concretize", "status": "copy", "text": "a 2", "score": None, "target": None},
        {"step": 3, "operation": "deepen", "status": "ok", "text": "a 3", "score": 5.5, "target": 6},
    ]


def test_an_example_of_responses_has_their_question_and_long_texts_are_cut():
    chains = {"q": chain_of("q", ("ok", "ok"), "quality")}
    (example,) = chain_examples(chains, [ranking_of("q", [1, 2])], max_chars=6)
    assert example["instruction"] == "q task\N{HORIZONTAL ELLIPSIS}"
    assert [version["text"] for version in example["versions"]] == ["q answ\N{HORIZONTAL ELLIPSIS}"] * 2


def test_examples_are_drawn_by_their_ids():
    seeds = [f"row-{number}" for number in range(50)]
    chains = {seed_id: chain_of(seed_id, ("ok", "ok")) for seed_id in seeds}
    rankings = [ranking_of(seed_id, [1, 2]) for seed_id in seeds]
    drawn = [example["seed_id"] for example in chain_examples(chains, rankings)]
    backwards = {seed_id: chains[seed_id] for seed_id in reversed(seeds)}
    assert drawn == [example["seed_id"] for example in chain_examples(backwards, rankings[::-1])]
    assert len(set(drawn)) == 3 and drawn != seeds[:3]

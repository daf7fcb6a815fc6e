import json

import pytest
from evolve.judged import ranking_of, rankings_of_three, three_chains
from fake_run import FakeRun

from deita_train.evolve.chains import Version
from deita_train.evolve.summary import chain_examples, evolve_summary, rank_summary
from deita_train.report.page import write_report
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.label_section import TITLE, label_section

NAUGHTY = "Tell <b>me</b> | `x`\n<script>alert(1)</script>"


CHAINS = three_chains(NAUGHTY)
RANKINGS = rankings_of_three()


def spending(calls, cost):
    return {
        "calls": calls, "answered": calls, "answered_from_store": 3, "prompt_tokens": 12_000, "completion_tokens": 800,
        "cost": cost, "earlier_prompt_tokens": 50, "earlier_completion_tokens": 6,
        "earlier_cost": None if cost is None else 0.5, "answers_with_estimated_tokens": 0, "failures": {},
        "repeated_calls": {},
    }  # fmt: skip


def write_run(folder, made, **manifests):
    """A run of stages: the metrics of each by its label; and what else is in its manifest."""
    run = FakeRun(folder)
    stages = {
        label: run.add(label.replace(".", "-"), label.split(".")[0], label, **found) for label, found in made.items()
    }
    for label, found in manifests.items():
        path = run.store / stages[label] / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **found}))
    run.write_cells([{"label": "base", "settings": {}, "base": True, "stages": stages}])
    return run.run_dir, run.store


def ranked(cost=1.25):
    return {
        "evolve.complexity": {
            "dimension": "complexity",
            **evolve_summary(CHAINS.values()),
            "spending": spending(9, cost),
        },
        "rank.complexity": {
            "dimension": "complexity",
            "splits": {"train": 3, "heldout": 1},
            **rank_summary(CHAINS, RANKINGS),
            "examples": chain_examples(CHAINS, RANKINGS),
            "spending": spending(5, cost),
        },
    }


RANK_MANIFEST = {
    "rank.complexity": {"rows_in": 6, "rows_out": 4, "drops": {"ambiguous_prompt": 1, "nothing_to_compare": 1}}
}


def tables_of(section):
    return {table.title: table for table in section.tables}


@pytest.fixture
def section(tmp_path):
    return label_section(read_summary(*write_run(tmp_path, ranked(), **RANK_MANIFEST)), ())


def test_without_a_chat_model_there_is_no_section(run):
    assert label_section(read_summary(*run), ()) is None


def test_what_was_ranked_and_what_came_of_it(section):
    table = tables_of(section)["Labels"]
    assert table.titles == (
        "dimension", "seeds", "seeds ranked", "evolved texts", "kept", "usable rankings", "rows", "train", "held out",
    )  # fmt: skip
    assert table.rows == (("complexity", "3", "2", "9", "3", "3 of 4", "4", "3", "1"),)


def test_drops_are_counted_by_reason(section):
    assert tables_of(section)["Drops by reason"].rows == (
        ("complexity", "evolved text", "copy", "4", "44.4%"),
        ("complexity", "evolved text", "empty", "1", "11.1%"),
        ("complexity", "evolved text", "failed_deadline", "1", "11.1%"),
        ("complexity", "answer of the judge", "all_tied", "1", "20.0%"),
        ("complexity", "answer of the judge", "no_scores", "1", "20.0%"),
        ("complexity", "ranking", "no_scores", "1", "25.0%"),
        ("complexity", "seed", "nothing_to_compare", "1", "33.3%"),
        ("complexity", "labelled text", "ambiguous_prompt", "1", "16.7%"),
        ("complexity", "labelled text", "nothing_to_compare", "1", "16.7%"),
    )


def test_scores_by_step_and_their_distribution(section):
    tables = tables_of(section)
    # a: 1, 3.5, 5.5 (levels 1, 4, 6) at the steps 0, 1 and 3; b: 2, 1 at 0 and 1.
    assert tables["Mean score by step"].rows == (
        ("complexity", "0", "2", "1.50"), ("complexity", "1", "2", "2.25"), ("complexity", "3", "1", "5.50"),
    )  # fmt: skip
    assert tables["Distribution of scores"].titles == ("dimension", *(f"score {level}" for level in range(1, 7)))
    assert tables["Distribution of scores"].rows == (
        ("complexity", "2 (40.0%)", "1 (20.0%)", "0 (0.0%)", "1 (20.0%)", "0 (0.0%)", "1 (20.0%)"),
    )


def test_the_judge_is_measured_beside_chance(section):
    # Steps of a: up, up; of b: down. No ties, so by chance half rise. Both orders of a agree: W is 1, by chance 1/2.
    (row,) = tables_of(section)["Whether the judge can be believed"].rows
    assert row[:8] == ("complexity", "3", "66.7%", "50.0%", "66.7%", "50.0%", "1.00", "0.50")
    measured = rank_summary(CHAINS, RANKINGS)["place_effect"]["correlation"]
    assert row[8] == f"{measured:.2f}".replace("-", "\N{MINUS SIGN}")


def test_rises_by_operation(section):
    assert tables_of(section)["Operations"].rows == (
        ("complexity", "concretize", "3", "1", "1", "\N{MINUS SIGN}1.00"),
        ("complexity", "deepen", "6", "2", "2", "2.25"),
    )


def test_each_warning_has_its_sentence(section):
    warnings = rank_summary(CHAINS, RANKINGS)["warnings"]
    assert len(warnings) == 2 and "reason to doubt the judge" in section.text
    assert section.notes == tuple(f"Warning ({w['name']}), complexity: {w['text']}" for w in warnings)


def test_what_it_cost_where_there_is_a_price(section, tmp_path):
    table = tables_of(section)["What was asked"]
    assert table.titles[-2:] == ("cost", "cost before")
    assert table.rows == (
        ("evolve.complexity", "9", "9", "3", "12,000", "800", "1.25", "0.5000"),
        ("rank.complexity", "5", "5", "3", "12,000", "800", "1.25", "0.5000"),
    )
    free = label_section(read_summary(*write_run(tmp_path / "free", ranked(cost=None))), ())
    assert tables_of(free)["What was asked"].titles[-1] == "tokens written"


def test_one_order_and_a_judge_without_differences_leave_dashes(tmp_path):
    made = ranked()
    made["rank.complexity"].update(rank_summary({"c": CHAINS["c"]}, []), examples=[])
    section = label_section(read_summary(*write_run(tmp_path, made)), ())
    assert tables_of(section)["Whether the judge can be believed"].rows[0][1:] == ("\N{EN DASH}",) * 8
    assert "Examples of complexity" not in tables_of(section) and section.notes == ()
    assert "doubt" not in section.text


def test_examples_stand_below_one_another_with_their_scores_and_are_escaped(tmp_path):
    folder, store = write_run(tmp_path, ranked(), **RANK_MANIFEST)
    table = tables_of(label_section(read_summary(folder, store), ()))["Examples of complexity"]
    of_a = [row[1:] for row in table.rows if row[0] == "a"]
    assert of_a == [
        ("0", "seed", "1.00", "1", NAUGHTY),
        ("1", "deepen", "3.50", "4", "a 1"),
        ("2", "concretize, dropped: copy", "\N{EN DASH}", "\N{EN DASH}", "a 2"),
        ("3", "deepen", "5.50", "6", "a 3"),
    ]
    page = write_report(folder, store)
    html = page.read_text()
    assert f'<section id="{TITLE.lower().replace(" ", "-")}">' in html
    assert "&lt;script&gt;alert(1)" in html and "<script>alert(1)" not in html
    markdown = (page.parent / "report.md").read_text()
    assert "Tell \\<b\\>me\\</b\\> \\| \\`x\\`" in markdown and "<script>" not in markdown.split("## Recipe")[0]


def test_for_quality_the_question_stands_first(tmp_path):
    seeds = {
        "q": [Version("q", 0, None, "Why?", "So.", "ok", None), Version("q", 1, "depth", "Why?", "Because.", "ok", "r")]
    }
    rankings = [ranking_of("q", [2, 5], 0)]
    metrics = {
        **ranked()["rank.complexity"],
        **rank_summary(seeds, rankings),
        "examples": chain_examples(seeds, rankings),
    }
    made = {"evolve.quality": {**ranked()["evolve.complexity"]}, "rank.quality": metrics}
    section = label_section(read_summary(*write_run(tmp_path, made)), ())
    dash = "\N{EN DASH}"
    assert tables_of(section)["Examples of quality"].rows == (
        ("q", dash, "question", dash, dash, "Why?"),
        ("q", "0", "seed", "2.00", "2", "So."),
        ("q", "1", "depth", "5.00", "5", "Because."),
    )


def test_direct_scores_and_tags_have_one_line_each(tmp_path):
    levels = {"1": 0, "2": 1, "3": 5, "4": 2, "5": 0, "6": 0}
    made = {
        "direct_score": {
            "rows": 10,
            "nulls": {"no_scores": 2},
            "mean": 3.125,
            "scores": levels,
            "spending": spending(11, None),
        },
        "instag": {"rows": 10, "nulls": {}, "tags": 7, "spending": spending(10, None)},
    }
    section = label_section(read_summary(*write_run(tmp_path, made)), ())
    assert section.notes == (
        "direct_score: 8 of 10 rows rated, mean 3.12; rows by score: 1: 0, 2: 1, 3: 5, 4: 2, 5: 0, 6: 0. Rows "
        "without: no_scores (2).",
        "instag: 10 of 10 rows tagged, with 7 different tags.",
    )
    assert list(tables_of(section)) == ["What was asked"]

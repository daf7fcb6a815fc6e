"""Benchmarks and answers in the report, from artefacts made here; differences against numpy by hand."""

import datasets
import numpy as np
import pytest

from deita_train.evaluation.result_text import difference_text, result_text
from deita_train.evaluation.results import PairedDifference, Result
from deita_train.report.page import page_context
from deita_train.report.results.benchmarks import benchmarks_of, differences_of, scores_of
from deita_train.report.results.groups import groups_of
from deita_train.report.results.result_measures import model_measures
from deita_train.report.results.summary import Artefact, Cell, RunSummary
from deita_train.report.sections.answer_section import answer_section
from deita_train.report.sections.benchmark_section import benchmark_section
from deita_train.report.tables.result_tables import result_tables
from deita_train.report.templating import render_markdown, render_page
from deita_train.stages.evaluating.generate import FEATURES

MANIFEST = {
    "started": "2026-01-01T00:00:00Z", "wall_seconds": 1.0, "drops": {}, "parents": {}, "key": "k", "versions": {},
    "kind": "generate", "label": "x", "rows_in": 1, "rows_out": 1, "content_digest": "0" * 64, "device": "cpu",
    "world_size": 1, "distributed_type": "NO", "threads": 1, "command": "deita-train run", "seed": 7,
}  # fmt: skip
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def artefact(tmp_path):
    """Writes an artefact with a table."""

    def write(name, metrics, rows, features=None, **config):
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / name / "data"))
        return Artefact(tmp_path / name, {**MANIFEST, "id": name, "config": config}, metrics)

    return write


def summary_of(*cells):
    """A run of these cells, mappings of stages, the first one the base run."""
    made = [
        Cell(f"seed {number}", {"sft": {"seed": number}, "select": {"budget": number}}, number == 0, stages,
             {label: item.id for label, item in stages.items()})
        for number, stages in enumerate(cells)
    ]  # fmt: skip
    return RunSummary("r", "", 7, tuple(made), None, "name: r\n")


def results(**figures):
    return {name.replace("_", " "): result.as_metric() for name, result in figures.items()}


def share(value, **more):
    return Result(value, value - 0.1, value + 0.1, 40, "share", **more)


def judged(artefact, name, scores, overall, **more):
    """A judge's table: a row for each turn of each question."""
    rows = [
        {"id": f"q{question}/{turn + 1}", "question_id": f"q{question}", "turn": turn, "score": score, "reason": None}
        for question, turns in enumerate(scores)
        for turn, score in enumerate(turns)
    ]
    figures = results(overall=Result(overall, overall - 1, overall + 1, len(scores), "score"))
    return artefact(name, {"title": "MT-Bench", "results": figures, "notes": ["Rated by m."], **more}, rows)


def test_a_table_for_each_benchmark_with_a_column_for_each_model(artefact):
    tasks = [{"id": "arc/0", "task": "arc", "score": 1.0}, {"id": "arc/1", "task": "arc", "score": 0.0}]
    stages = {
        "mt_bench.sft": judged(artefact, "s", [[8.0, 6.0], [5.0, None]], 6.333),
        "mt_bench.base": judged(artefact, "b", [[4.0, 6.0], [5.0, 3.0]], 4.5, notes=["Rated by m.", "Two turns."]),
        "lm_eval.base": artefact(
            "l",
            {"title": "Tasks", "results": results(arc=share(0.5), loss=share(0.25, higher_is_better=False))},
            tasks,
        ),
        "generate.base": artefact("g", {"answers": 1}, [{"id": "x"}]),
    }  # fmt: skip
    first, second, differences = benchmark_section(summary_of(stages), ()).tables
    assert (first.title, first.titles) == ("MT-Bench", ("figure", "base", "SFT", "questions"))
    assert first.rows == (("overall", "4.50 (3.50 to 5.50)", "6.33 (5.33 to 7.33)", "2"),)
    assert first.note == "Rated by m. Two turns."
    assert second.rows == (
        ("arc", "50.0% (40.0 to 60.0)", "40"),
        ("loss (lower is better)", "25.0% (15.0 to 35.0)", "40"),
    )
    # Question 0: 7 against 5; question 1: 5 (one turn has no score) against 4.
    ((title, models, difference, questions, verdict),) = differences.rows
    assert (title, models, questions) == ("MT-Bench", "SFT \N{MINUS SIGN} base", "2")
    assert difference.startswith("+1.50 (1.00 to 2.00)") and verdict == "excludes zero"


def test_differences_are_over_the_questions_of_both_task_by_task(artefact):
    random = np.random.default_rng(3)
    first, second = random.integers(0, 2, 60).astype(float), random.integers(0, 2, 60).astype(float)

    def tasks(values, skip):
        return [
            {"id": f"{task}/{n}", "task": task, "score": float(values[n])}
            for task, part in (("arc", range(30)), ("mmlu_law", range(30, 45)), ("mmlu_art", range(45, 60)))
            for n in part
            if n != skip
        ]

    metrics = {"results": results(mean=share(0.5), arc=share(0.4), mmlu=share(0.6))}
    stages = {
        "lm_eval.base": artefact("b", metrics, tasks(first, 3)),
        "lm_eval.sft": artefact("s", metrics, tasks(second, 31)),
        "lm_eval.dpo": artefact("d", metrics, tasks(second, 31)),
    }
    (benchmark,) = benchmarks_of(stages)
    assert (benchmark.title, list(benchmark.models)) == ("lm_eval", ["base", "sft", "dpo"])
    assert {task: len(by_id) for task, by_id in scores_of(stages["lm_eval.base"]).items()} == {"arc": 29, "mmlu": 30}
    found = list(differences_of(benchmark))
    pairs = [(of.later, of.earlier, of.task) for of in found]
    assert pairs == [
        (later, earlier, task)
        for earlier, later in (("base", "sft"), ("base", "dpo"), ("sft", "dpo"))
        for task in ("arc", "mmlu")
    ]
    for of, places in zip(found[:2], (range(30), range(30, 60)), strict=True):
        kept = [place for place in places if place not in (3, 31)]
        assert of.difference.mean == pytest.approx(np.mean(second[kept] - first[kept]))
        assert of.difference.questions == len(kept) and of.unit == "share"
    assert found[4].difference.holds_zero and found[4].difference.mean == 0


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result(0.6123, 0.58, 0.6444, 9, "share"), "61.2% (58.0 to 64.4)"),
        (Result(90.06211, None, None, 805, "percent"), "90.06%"),
        (Result(6.845, 6.5, 7.1, 80, "score"), "6.84 (6.50 to 7.10)"),
        (Result(1234.5678, None, None, 80, "number"), "1,235"),
    ],
)
def test_a_figure_with_its_interval(result, text):
    assert result_text(result) == text


@pytest.mark.parametrize(
    ("difference", "unit", "text"),
    [
        (PairedDifference(0.012, -0.003, 0.027, 9), "share", "+1.2 (\N{MINUS SIGN}0.3 to 2.7)"),
        (PairedDifference(-0.5, None, None, 1), "score", "\N{MINUS SIGN}0.50"),
        (PairedDifference(0.0, 0.0, 0.0, 9), "score", "0.00 (0.00 to 0.00)"),
    ],
)
def test_a_difference_with_its_sign(difference, unit, text):
    assert difference_text(difference, unit) == text


def test_the_headline_of_a_benchmark_is_a_measure_of_the_groups(artefact):
    untuned = results(win_rate=Result(10.0, None, None, 5, "percent"))

    def stages(name, value):
        figures = results(win_rate=Result(value, None, None, 5, "percent"), other=share(0.3))
        return {
            "alpaca_eval.base": artefact(
                f"base-{name}", {"title": "AlpacaEval", "results": untuned}, [{"id": "q", "score": 0.1}]
            ),
            "alpaca_eval.sft": artefact(
                f"sft-{name}", {"title": "AlpacaEval", "results": figures}, [{"id": "q", "score": 0.2}]
            ),
            "sft": Artefact(artefact(f"x-{name}", {}, [{"id": "q"}]).folder, {**MANIFEST, "id": f"x-{name}"}, {}),
        }  # fmt: skip

    summary = summary_of(stages("a", 20.0), stages("b", 25.0))
    groups = groups_of(summary)
    (measure,) = model_measures(groups)
    assert (measure.title, measure.direction) == ("AlpacaEval, win rate, after SFT", "higher is better")
    assert [measure.text_of(group) for group in groups] == ["20.0%", "25.0%"]
    assert measure.reference_text(groups) == "10.0%"
    assert any(
        "AlpacaEval, win rate, after SFT" in str(table.rows) + str(table.titles) for table in result_tables(summary)
    )


def answers(artefact, name, texts, **config):
    rows = [
        {"id": f"q{n}", "turn": turn, "prompt": f"<i>{n}</i>", "answer": text, "tokens": 3, "ended": ended,
         "reason": None if text is not None else "prompt_too_long"}
        for n, turns in enumerate(texts) for turn, (text, ended) in enumerate(turns)
    ]  # fmt: skip
    metrics = {
        "asked": len(rows), "answers": sum(row["answer"] is not None for row in rows), "mean_tokens": 3.0,
        "empty_share": 0.25, "truncated_share": 0.5, "seq_rep_4": None, "unanswered": {"prompt_too_long": 1},
    }  # fmt: skip
    return artefact(name, metrics, rows, FEATURES, **config)


LONG_TEXT = "def f():\n    return 1\n" * 60


def test_answers_stand_side_by_side_escaped_and_folded(artefact):
    stages = {
        "generate.dpo": answers(artefact, "d", [[("x", True), (LONG_TEXT, False)], [(SCRIPT, True)]]),
        "generate.base": answers(artefact, "b", [[("  ", True), (None, False)], [("y", True)]], temperature=0.0),
    }  # fmt: skip
    summary = summary_of(stages)
    section = answer_section(summary, groups_of(summary))
    shown, numbers = section.tables
    ellipsis = "\N{HORIZONTAL ELLIPSIS}"
    assert shown.titles == ("prompt", "base", "DPO")
    assert shown.rows == (
        ("<i>0</i>", "(empty)", "x"),
        ("(turn 2) <i>0</i>", "(no answer: prompt_too_long)", LONG_TEXT.strip() + ellipsis),
        ("<i>1</i>", "y", SCRIPT),
    )
    assert "likeliest token" in section.text and shown.note.startswith("An answer that ends in an ellipsis")
    assert numbers.rows[0] == ("base", "2 of 3", "3", "25.0%", "50.0%", "\N{EN DASH}", "prompt_too_long: 1")
    context = page_context(summary)
    page = render_page(context)
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page and "&lt;i&gt;0" in page
    left = len(LONG_TEXT.strip()) + 1 - 500
    assert f"<details><summary>{left} more characters</summary>" in page
    # Nothing of the folded text is lost.
    folded = LONG_TEXT.strip() + ellipsis
    assert f"{folded[:500]}<details>" in page and f"</summary>{folded[500:]}</details>" in page
    text = render_markdown(context)
    assert rf"\[{left} more characters are on the page\]" in text


def test_the_page_of_a_run_with_benchmarks_alone_says_so_and_gives_three_models_room(artefact):
    stages = {f"generate.{model}": answers(artefact, model, [[("x", True)]]) for model in ("base", "sft", "dpo")}
    alone = render_page(page_context(summary_of(stages)))
    assert "neither selected rows nor evaluated a model" in alone and 'class="scroll texts fits-50"' in alone
    del stages["generate.dpo"]
    stages["mt_bench.base"] = judged(artefact, "b", [[4.0, 6.0]], 5.0)
    page = render_page(page_context(summary_of(stages)))
    assert "The section Benchmarks has the figures" in page and 'class="scroll texts fits-32"' in page


def test_only_some_of_many_questions_are_shown_and_the_others_are_counted(artefact):
    item = answers(artefact, "b", [[(f"a{n}", True)] for n in range(60)], temperature=0.7)
    section = answer_section(summary_of({"generate.base": item}), ())
    assert len(section.tables[0].rows) == 24
    assert section.tables[0].note == "36 more questions and the answers to them are in the artefacts (base: b)."
    assert "drawn at temperature 0.7" in section.text


def test_a_model_behind_an_endpoint_has_its_servers_name(artefact):
    item = answers(artefact, "b", [[("a", True)]], model={"served": "org/far"}, temperature={"math": 0.0})
    section = answer_section(summary_of({"generate.served": item}), ())
    assert section.tables[0].titles == ("prompt", "org/far") and "of each question's category" in section.text


def test_a_text_longer_than_any_page_is_cut_and_says_so(artefact):
    item = answers(artefact, "b", [[("w" * 7000, True)]])
    text = answer_section(summary_of({"generate.base": item}), ()).tables[0].rows[0][1]
    assert text == "w" * 6000 + " [1,000 more characters are in the artefact]"

"""Published figures beside the run's own, in a run's report, over a sweep, and with runs side by side."""

import datasets
import pytest
from fake_run import edit_json, write_fake_run

from deita_train.evaluation.results import Result
from deita_train.report.page import write_report
from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.run_page import comparison_tables, read_runs
from deita_train.report.sections.published_section import published_section
from deita_train.report.tables.result_tables import result_tables

PAPER = "DEITA paper, Table 6"


def figure(measure, value, model="sft", cell=None, source=PAPER):
    return {"measure": measure, "model": model, "value": value, "source": source, "cell": cell}


def metrics(value, name="overall", unit="score"):
    return {"title": "MT-Bench", "results": {name: Result(value, value - 1, value + 1, 80, unit).as_metric()}}


@pytest.fixture
def run(tmp_path):
    """Two methods with three seeds; MT-Bench of each, lm_eval and AlpacaEval of the base run alone."""
    made = write_fake_run(tmp_path)

    def measured(name, kind, label, **found):
        made.add(name, kind, label, **found)
        rows = [{"id": f"q{number}", "score": 1.0} for number in range(2)]
        datasets.Dataset.from_list(rows).save_to_disk(str(made.store / name / "data"))
        return name

    def add(record):
        for cell in record["cells"]:
            method, seed = cell["settings"]["select.method"], cell["settings"]["select.seed"]
            name = f"{method}-{seed}"
            value = {"deita": 6, "random": 5}[method] + seed / 10
            cell["stages"] = {
                "select": cell["stages"]["select"],
                "mt_bench.sft": measured(f"mt-{name}", "judge", "mt_bench.sft", **metrics(value)),
            }
            if cell["base"]:
                cell["stages"] |= {
                    "lm_eval.sft": measured("tasks", "lm_eval", "lm_eval.sft", **metrics(0.5, "mean", "share")),
                    "alpaca_eval.sft": measured(
                        "wins", "judge", "alpaca_eval.sft", **metrics(77.5, "win rate", "percent")
                    ),
                }
        record["nodes"] |= made.nodes

    edit_json(made.run_dir / "stages.json", add)
    return made


def publish(run, *figures):
    edit_json(run.run_dir / "stages.json", lambda record: record.update(published=list(figures)))


def keep_base(run):
    edit_json(run.run_dir / "stages.json", lambda record: record.update(cells=record["cells"][:1]))


def section_of(run):
    summary = read_summary(run.run_dir, run.store)
    return published_section(summary, groups_of(summary))


def test_a_single_run_has_its_own_with_intervals_and_says_what_it_has_not_measured(run):
    assert section_of(run) is None
    keep_base(run)
    publish(
        run,
        figure("mt_bench", 6.46),
        figure("mt_bench", 7.06, source="issue 23"),
        figure("alpaca_eval", 77.08),
        figure("alpaca_eval.length_controlled", 50),
        figure("lm_eval.mean", 64.27, source="DEITA paper, Table 7"),
        figure("lm_eval.arc_challenge", 59.47),
        figure("mt_bench", 7.55, model="dpo"),
    )
    (table,) = section_of(run).tables
    assert table.titles == ("figure", "model", "this run", "published", "source")
    assert table.rows == (
        ("MT-Bench", "SFT", "6.10 (5.10 to 7.10)", "6.46", PAPER),
        ("MT-Bench", "SFT", "6.10 (5.10 to 7.10)", "7.06", "issue 23"),
        ("AlpacaEval, win rate", "SFT", "77.50% (76.50 to 78.50)", "77.08%", PAPER),
        ("AlpacaEval, length-controlled win rate", "SFT", "not measured here", "50.00%", PAPER),
        ("Open LLM Leaderboard, mean", "SFT", "50.0% (-50.0 to 150.0)".replace("-", "\N{MINUS SIGN}"), "64.27%",
         "DEITA paper, Table 7"),
        ("arc_challenge", "SFT", "not measured here", "59.47%", PAPER),
        ("MT-Bench", "DPO", "not measured here", "7.55", PAPER),
    )  # fmt: skip
    (printed,) = [table for table in result_tables(read_summary(run.run_dir, run.store)) if "Published" in table.title]
    assert printed.rows == table.rows
    page = write_report(run.run_dir, run.store)
    assert "how the tuned models do, and what" in page.read_text().lower()
    text = page.with_suffix(".md").read_text()
    assert "## Published figures" in text and "| not measured here |" in text and PAPER in text


def test_over_a_sweep_each_cell_has_its_own(run):
    publish(
        run,
        figure("mt_bench", 6.46),
        figure("mt_bench", 5.84, cell={"select.method": "random"}),
        figure("lm_eval.mean", 60, cell={"select.method": "random"}),
        figure("mt_bench", 5.61, cell={"select.method": "alpagasus"}),
    )
    (table,) = section_of(run).tables
    assert table.titles == ("figure", "model", "group", "this run", "published", "source")
    # Three seeds at a distance of 0.1: t of two degrees of freedom is 4.303, over the square root of 3 times 0.1.
    assert table.rows == (
        ("MT-Bench", "SFT", "deita", "6.20 ± 0.25", "6.46", PAPER),
        ("MT-Bench", "SFT", "random", "5.20 ± 0.25", "5.84", PAPER),
        ("Open LLM Leaderboard, mean", "SFT", "random", "not measured here", "60.00%", PAPER),
        ("MT-Bench", "SFT", "method alpagasus", "not measured here", "5.61", PAPER),
    )


def test_runs_side_by_side_name_the_run(run, tmp_path):
    other = tmp_path / "runs" / "other"
    other.mkdir()
    for name in ("stages.json", "recipe.resolved.yaml"):
        (other / name).write_text((run.run_dir / name).read_text())
    # The other run has measured nothing, and names no figures.
    selected = {"select": "select-deita"}
    edit_json(other / "stages.json", lambda record: [cell.update(stages=selected) for cell in record["cells"]])
    publish(run, figure("mt_bench", 6.46))
    tables, _ = comparison_tables(read_runs([(run.run_dir, run.store), (other, run.store)]))
    assert tables[-1].titles == ("run", "figure", "model", "group", "this run", "published", "source")
    assert tables[-1].rows == (("fake", "MT-Bench", "SFT", "deita", "6.20 ± 0.25", "6.46", PAPER),)

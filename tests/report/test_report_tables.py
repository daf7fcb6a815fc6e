from fake_run import edit_json

from deita_train.report.results.groups import groups_of
from deita_train.report.results.result_measures import model_measures, untuned_name
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.scorer_section import scorer_section
from deita_train.report.tables.fitting import PAGE_WIDTH, least_width
from deita_train.report.tables.page_results import page_kept_tables, page_model_tables
from deita_train.report.tables.result_tables import group_table, kept_table, result_tables
from deita_train.report.tables.stage_tables import strata_table


def test_result_table_by_hand(run):
    result, scorers = result_tables(read_summary(*run))
    assert result.titles == ("", "deita", "random", "for comparison")
    rows = {row[0]: row[1:] for row in result.rows}
    # sd 0.01 and 0.02 over three seeds: half widths 4.302653 * sd / sqrt(3) = 0.0248 and 0.0497.
    assert rows["held-out loss after SFT"] == ("2.300 ± 0.025", "2.400 ± 0.050", "3.200 (before SFT)")
    assert rows["rows kept"] == ("80", "80", "400 (pool)")
    assert rows["mean evol score"][1] == "\N{EN DASH}"
    assert rows["near duplicate share"][2] == "25.0% (pool)"
    assert rows["seeds"] == ("3", "3", "")
    assert scorers.titles[0] == "scorer" and [row[0] for row in scorers.rows] == ["complexity", "quality"]
    assert {len(row) for row in scorers.rows} == {len(scorers.columns)}


def test_tables_by_group_have_a_reference_and_one_row_per_group(run):
    summary = read_summary(*run)
    groups = groups_of(summary)
    models = group_table(model_measures(groups), untuned_name(groups), groups)
    for table, reference in ((models, "before SFT"), (kept_table(summary, groups), "pool")):
        assert [row[0] for row in table.rows] == [reference, "deita", "random"]
        assert table.num_references == 1
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [(column.title, column.note) for column in models.columns[2:]] == [
        ("held-out loss after SFT", "lower is better"),
    ]  # fmt: skip


def test_a_page_has_few_groups_as_columns(run):
    summary = read_summary(*run)
    groups = groups_of(summary)
    (models,), (kept,) = page_model_tables(groups), page_kept_tables(summary, groups)
    assert [(column.title, column.note) for column in models.columns] == [
        ("measure", ""), ("better", ""), ("deita", "3 seeds"), ("random", "3 seeds"), ("before SFT", ""),
    ]  # fmt: skip
    assert models.rows == (("held-out loss after SFT", "lower", "2.300 ± 0.025", "2.400 ± 0.050", "3.200"),)
    assert kept.titles == ("measure", "deita", "random", "pool")
    assert kept.rows[:2] == (("rows kept", "80", "80", "400"), ("training tokens", "40,960", "40,960", ""))


def test_a_page_has_many_groups_as_rows_in_tables_that_fit(swept):
    summary = read_summary(*swept)
    groups = groups_of(summary)
    models = page_model_tables(groups)
    assert [(table.title, table.titles) for table in models] == [
        ("Held-out loss", ("budget", "method", "seeds", "after SFT", "after DPO")),
        ("Preference accuracy", ("budget", "method", "seeds", "after SFT", "after DPO", "reward accuracy of DPO")),
        ("Preference margin", ("budget", "method", "seeds", "after SFT", "after DPO", "reward margin of DPO")),
    ]
    (kept,) = page_kept_tables(summary, groups)
    assert kept.title == "Rows kept" and all(least_width(table) <= PAGE_WIDTH for table in (*models, kept))
    assert all([row[0] for row in table.rows].count("40") == 2 for table in models)


def test_scorers_by_hand(run):
    (table, by_label) = scorer_section(read_summary(*run), ()).tables
    assert table.titles == ("measure", "complexity", "quality")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["rank correlation (higher is better)"] == ("0.910", "0.810")
    assert rows["bias (best is 0)"] == ("\N{MINUS SIGN}0.12", "\N{MINUS SIGN}1.12")
    assert rows["slope (best is 1)"] == ("1.50", "1.50")
    assert rows["intercept (best is 0)"] == ("\N{MINUS SIGN}0.75", "\N{MINUS SIGN}0.75")
    assert [(column.title, column.note) for column in by_label.columns] == [
        ("label", ""), ("mean score", "complexity"), ("rows", "complexity"), ("mean score", "quality"),
        ("rows", "quality"),
    ]  # fmt: skip
    assert by_label.rows == (("1", "1.25", "30", "1.25", "30"), ("4", "3.50", "20", "3.50", "20"))


def test_a_label_that_a_scorer_never_saw_has_a_dash(run):
    quality = read_summary(*run).base_cell.stages["train_scorer.quality"]
    edit_json(quality.folder / "metrics.json", lambda record: record["heldout"]["by_label"].pop())
    (_, by_label) = scorer_section(read_summary(*run), ()).tables
    assert by_label.rows[1] == ("4", "3.50", "20", "\N{EN DASH}", "0")


def test_a_scorer_without_held_out_rows_has_no_calibration(run):
    for name in ("complexity", "quality"):
        scorer = read_summary(*run).base_cell.stages[f"train_scorer.{name}"]
        edit_json(scorer.folder / "metrics.json", lambda record: record.update(heldout=None))
    section = scorer_section(read_summary(*run), ())
    (table,) = section.tables
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["held-out rows"] == ("\N{EN DASH}",) * 2 and "bias (best is 0)" not in rows
    assert "Bias" not in table.note and "calibration" not in [figure.name for figure in section.figures]


def test_strata_by_hand(run):
    select = read_summary(*run).base_cell.stages["select"]
    assert strata_table(select) is None
    counts = {"rows": 1200, "quota": 40, "selected": 25}
    select.metrics["strata"] = {"chat": counts, "code": {**counts, "selected": 55}}
    table = strata_table(select)
    assert [column.title for column in table.columns] == ["stratum", "rows", "quota", "kept", "short of the quota"]
    assert table.rows == (("chat", "1,200", "40", "25", "15"), ("code", "1,200", "40", "55", "0"))
    select.metrics["strata"] = {"chat": {**counts, "quota": 9000, "tokens": 8990}}
    table = strata_table(select)
    assert table.rows == (("chat", "1,200", "9,000", "25", "8,990", "10"),)
    assert "Quotas are in tokens" in table.note

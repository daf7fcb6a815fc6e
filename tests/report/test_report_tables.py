from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.selection_sections import scorer_section
from deita_train.report.tables.result_tables import kept_table, model_table, result_tables
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
    for table, reference in ((model_table(groups), "before SFT"), (kept_table(summary, groups), "pool")):
        assert [row[0] for row in table.rows] == [reference, "deita", "random"]
        assert table.num_references == 1
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [(column.title, column.note) for column in model_table(groups).columns[2:]] == [
        ("held-out loss after SFT", "lower is better"),
    ]  # fmt: skip


def test_calibration_of_the_scorers_by_hand(run):
    (_, table) = scorer_section(read_summary(*run), ()).tables
    titles = ["scorer", "bias", "slope", "intercept", *(f"label {label}" for label in range(1, 7))]
    assert list(table.titles) == titles
    absent = "\N{EN DASH}"
    by_label = ("1.25 (30)", absent, absent, "3.50 (20)", absent, absent)
    assert table.rows == (
        ("complexity", "\N{MINUS SIGN}0.12", "1.50", "\N{MINUS SIGN}0.75", *by_label),
        ("quality", "\N{MINUS SIGN}1.12", "1.50", "\N{MINUS SIGN}0.75", *by_label),
    )


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

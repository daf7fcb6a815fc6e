import json

import pytest

from deita_train.report.results.groups import Group, groups_of, settings_label
from deita_train.report.results.result_measures import model_measures, untuned_name
from deita_train.report.results.summary import Cell, read_summary
from deita_train.report.results.sweep_axis import sweep_of
from deita_train.report.tables.result_tables import group_table, kept_table, result_tables


def group(**settings):
    """A group with these settings (``__`` for a dot) and one cell without artefacts."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    label = ", ".join(f"{name} {value}" for name, value in dotted.items()) or "base run"
    return Group(label, dotted, (Cell(label, dotted, False, {}, {}),), False)


def lines(*groups):
    return {line.label: [point.value for point in line.points] for line in sweep_of(groups).lines}


def test_a_sweep_has_a_line_per_method_and_the_whole_pool_beside_them(swept):
    sweep = sweep_of(groups_of(read_summary(*swept)))
    assert (sweep.path, sweep.name, sweep.line_name) == ("select.budget", "budget", "method")
    assert {line.label: [point.value for point in line.points] for line in sweep.lines} == {
        "deita": [40, 80, 160], "random": [40, 80, 160],
    }  # fmt: skip
    assert [level.label for level in sweep.levels] == ["whole pool"] and sweep.levels[0].is_whole_pool
    assert sweep.labels == ["deita", "random", "whole pool"]
    assert [(line.label, point.value) for line, point in sweep.points] == [
        ("deita", 40), ("random", 40), ("deita", 80), ("random", 80), ("deita", 160), ("random", 160),
    ]  # fmt: skip
    assert [sweep.depth_of(point.group) for _, point in sweep.points] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert sweep.depth_of(sweep.levels[0]) == 1.0


def test_the_budget_is_the_axis_before_other_numbers():
    groups = [
        group(sft__trainer__learning_rate=rate, select__budget=budget) for rate in (1e-5, 1e-4) for budget in (500, 50)
    ]
    assert sweep_of(groups).path == "select.budget"
    assert lines(*groups) == {"learning rate 1e-5": [50, 500], "learning rate 0.0001": [50, 500]}
    assert sweep_of(groups).line_name == "settings"
    assert sweep_of(groups[::2]).path == "sft.trainer.learning_rate"


def test_paths_that_a_sweep_joins_make_one_line():
    groups = [group(select__budget=n, sft__trainer__max_steps=2 * n, select__method="deita") for n in (100, 200)]
    assert lines(*groups) == {"deita": [100, 200]}


@pytest.mark.parametrize(
    ("budgets", "texts"),
    [
        ([{"share": 0.5}, {"share": 0.02}], ["2%", "50%"]),
        ([{"tokens": 5_000_000}, {"tokens": 900}], ["900 tokens", "5,000,000 tokens"]),
    ],
)
def test_shares_and_tokens_are_axes_in_words(budgets, texts):
    groups = [group(select__budget=budget, select__method="deita") for budget in budgets]
    sweep = sweep_of(groups)
    assert lines(*groups) == {"deita": sorted(next(iter(budget.values())) for budget in budgets)}
    assert (sweep.path, sweep.name) == ("select.budget", "budget")
    assert [sweep.text(point.value) for _, point in sweep.points] == texts
    assert [sweep.value_of(point.group) for _, point in sweep.points] == texts


def test_rows_and_tokens_have_no_axis_in_common():
    groups = [group(select__budget=budget) for budget in (500, {"tokens": 900}, {"share": 0.5})]
    assert sweep_of(groups) is None
    treatments = [one.settings for one in groups]
    assert [settings_label(one, treatments) for one in treatments] == ["budget 500", "budget 900 tokens", "budget 50%"]


@pytest.mark.parametrize("values", [(True, False), ("zero2", "zero3"), (1, "two"), (5, 5)])
def test_what_is_no_number_is_no_axis(values):
    assert sweep_of([group(sft__option=value) for value in values]) is None


def test_labels_tell_paths_apart_that_end_alike():
    treatments = [
        {"sft.trainer.learning_rate": 1e-3, "dpo.trainer.learning_rate": rate, "sft.trainer.max_length": 512}
        for rate in (1e-5, 1e-6)
    ]
    assert settings_label(treatments[0], treatments) == "learning rate 1e-5"
    treatments[1]["sft.trainer.learning_rate"] = 5e-3
    treatments.append(treatments[0] | {"sft.trainer.learning_rate": 5e-3})
    assert (
        settings_label(treatments[2], treatments) == "sft trainer learning rate 0.005, dpo trainer learning rate 1e-5"
    )
    joined = [{"sft.trainer.max_length": n, "evaluate.max_length": n} for n in (512, 1024)]
    assert settings_label(joined[1], joined) == "max length 1,024"


def model_rows(groups):
    return group_table(model_measures(groups), untuned_name(groups), groups)


def test_one_row_per_budget_and_method_below_the_references(swept):
    summary = read_summary(*swept)
    groups = groups_of(summary)
    table = model_rows(groups)
    assert [column.title for column in table.columns] == [
        "budget", "method", "seeds", "held-out loss after SFT", "held-out loss after DPO",
        "preference accuracy after SFT", "preference accuracy after DPO", "preference margin after SFT",
        "preference margin after DPO", "reward accuracy of DPO", "reward margin of DPO",
    ]  # fmt: skip
    rows = {row[:2]: row[2:] for row in table.rows}
    assert list(rows) == [
        ("before SFT", ""), ("whole pool", ""), ("40", "deita"), ("40", "random"), ("80", "deita"), ("80", "random"),
        ("160", "deita"), ("160", "random"),
    ]  # fmt: skip
    assert table.num_references == 2
    # Margins are 20 times the accuracy less 15.
    assert rows["before SFT", ""] == (
        "",
        "3.200",
        "3.200",
        "55.0%",
        "55.0%",
        "\N{MINUS SIGN}4.000",
        "\N{MINUS SIGN}4.000",
        "",
        "",
    )
    # t(0.975, 2) = 4.302653: half widths 4.302653 * sd / sqrt(3), sd 0.01 of losses and accuracies after SFT, 0.03 of
    # the accuracies 67%, 70% and 73% after DPO; of the margins 20 times as much.
    by_hand = (
        "62.0 ± 2.5%",
        "70.0 ± 7.5%",
        "\N{MINUS SIGN}2.60 ± 0.50",
        "\N{MINUS SIGN}1.0 ± 1.5",
        "71.0 ± 2.5%",
        "0.4000",
    )
    assert rows["80", "deita"] == ("3", "2.300 ± 0.025", "2.350 ± 0.025", *by_hand)
    assert rows["whole pool", ""] == ("3", "2.280 ± 0.025", "2.330 ± 0.025", *by_hand)
    kept = {row[:2]: row[3] for row in kept_table(summary, groups).rows}
    assert kept["pool", ""] == kept["whole pool", ""] == "400" and kept["160", "random"] == "160"


def test_a_mean_says_how_many_seeds_it_lacks(swept):
    table = model_rows(groups_of(read_summary(*swept)))
    rows = {row[:2]: row[2:] for row in table.rows}
    # SFT with seed 3 failed: losses 2.34 and 2.35, t(0.975, 1) = 12.7062, half width 12.7062 * 0.005 = 0.0635.
    assert rows["160", "random"][:2] == ("3 (1 failed)", "2.345 ± 0.064 (2 of 3)")
    # Accuracies 67% and 70%: half width 12.7062 * 1.5 = 19.06.
    assert rows["160", "random"][4] == "68 ± 19% (2 of 3)"
    # DPO with seed 2 failed, its SFT did not.
    assert rows["40", "deita"][:3] == ("3 (1 failed)", "2.500 ± 0.025", "2.55 ± 0.13 (2 of 3)")


def test_a_group_without_any_result_is_said_to_have_failed(swept):
    run_dir, store = swept
    failures = json.loads((run_dir / "failures.json").read_text())
    failures += [failures[0] | {"artefact": f"sft-random-160-{seed}"} for seed in (1, 2)]
    (run_dir / "failures.json").write_text(json.dumps(failures))
    rows = {row[:2]: row[2:] for row in model_rows(groups_of(read_summary(run_dir, store))).rows}
    assert rows["160", "random"] == ("3 (3 failed)", *["failed"] * 8)


def test_a_recipe_beside_its_sweep_has_a_row_and_no_point(swept):
    record = json.loads((swept[0] / "stages.json").read_text())
    written = record["cells"][0] | {"settings": {}, "label": "base run"}
    written["stages"] = written["stages"] | {"sft": "sft-random-40-1", "evaluate.sft": "evaluate-sft-random-40-1"}
    record["cells"] = [written, *(cell | {"base": False} for cell in record["cells"])]
    (swept[0] / "stages.json").write_text(json.dumps(record))
    groups = groups_of(read_summary(*swept))
    assert [level.label for level in sweep_of(groups).levels] == ["whole pool", "base run"]
    rows = [row[:3] for row in model_rows(groups).rows]
    assert rows[:4] == [
        ("before SFT", "", ""),
        ("whole pool", "", "3"),
        ("base run", "", "1"),
        ("40", "deita", "3 (1 failed)"),
    ]


def test_a_terminal_gets_narrow_tables_and_the_failures(swept):
    tables = {table.title: table for table in result_tables(read_summary(*swept))}
    assert list(tables) == [
        "held-out loss", "preference accuracy", "preference margin", "kept rows", "scorers", "failed: 2 of 21 cells",
    ]  # fmt: skip
    head = ("budget", "method", "seeds", "after SFT", "after DPO")
    assert tables["held-out loss"].titles == head
    assert tables["preference accuracy"].titles == (*head, "reward accuracy of DPO")
    words = [[column.numeric for column in table.columns].count(False) for table in tables.values()]
    assert words == [2, 2, 2, 2, 1, 4]
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert tables["failed: 2 of 21 cells"].rows[0][:3] == (
        "random, budget 160, seed 3", "sft", "sft: [Errno 12] <out> of memory | at step 7",
    )  # fmt: skip

from pathlib import Path

import pytest
from fake_run import edit_json

from deita_train.report.figures.funnel_figure import funnel
from deita_train.report.results.funnel import funnel_of
from deita_train.report.results.summary import Artefact, Cell, read_summary
from deita_train.report.sections.funnel_section import funnel_section

# Of 1,000 rows 60 cannot be used, and 40 are left out of the other 940 by the selection before it begins.
POOL = {"rows_in": 1000, "rows_out": 940, "drops": {"no_user_turn": 50, "not_sampled": 10}}
DEITA = {"threshold": 0.9, "seen": 130, "rejected": 30, "budget_met": True, "budget": 100}
UNRANKED = {"contaminated": 3, "no_scored_turn": 37}
TOO_SIMILAR = "passed over, too similar to a kept row"


def artefact(rows_in, rows_out, drops, **metrics):
    manifest = {"id": "x", "rows_in": rows_in, "rows_out": rows_out, "drops": drops}
    return Artefact(Path("x"), manifest, metrics)


def cell_of(select, **others):
    stages = {"pool": artefact(**POOL), "select": select, **others}
    return Cell("base", {}, True, stages, {label: "x" for label in stages})


def test_a_walk_reaches_rows_passes_over_some_and_keeps_the_others():
    select = artefact(940, 100, UNRANKED | {"not_selected": 800}, **DEITA)
    sft = artefact(100, 95, {"fields_not_written": 2, "without_loss": 3}, rows_truncated=4)
    steps = [(step.name, step.left, dict(step.lost)) for step in funnel_of(cell_of(select, sft=sft))]
    assert steps == [
        ("Read", 1000, {}),
        ("Usable", 940, {"no user turn": 50, "not drawn from their source": 10}),
        ("Could be selected", 900, {"repeat a question of a benchmark": 3, "have no score to be ranked by": 37}),
        ("Reached by the walk", 130, {"not reached when the budget was met": 770}),
        ("Kept", 100, {TOO_SIMILAR: 30}),
        ("Trained on by SFT", 95, {"fields not written": 2, "no token with loss": 3}),
    ]  # fmt: skip


def test_a_walk_that_missed_its_budget_reached_every_row():
    select = artefact(
        940, 20, UNRANKED | {"not_selected": 880}, **DEITA | {"seen": 900, "rejected": 880, "budget_met": False}
    )
    reached, kept = funnel_of(cell_of(select))[-2:]
    assert (reached.left, dict(reached.lost)) == (900, {"not reached": 0})
    assert (kept.left, dict(kept.lost)) == (20, {TOO_SIMILAR: 880})


@pytest.mark.parametrize(("drops", "kept"), [({"not_selected": 840}, 100), ({}, 940)])
def test_a_method_that_does_not_walk_says_no_more_than_not_selected(drops, kept):
    # A method such as random counts no row as seen beyond those kept, and whole_pool keeps all.
    select = artefact(940, kept, drops, threshold=None, seen=kept, rejected=0, budget_met=True, budget=None)
    names = [step.name for step in funnel_of(cell_of(select))]
    assert names == ["Read", "Usable", "Could be selected", "Kept"]
    assert dict(funnel_of(cell_of(select))[-1].lost) == ({"not selected": 840} if drops else {})


def test_a_cleaned_pool_is_a_step_and_rows_outside_a_share_were_read():
    pool = artefact(**POOL, rows_outside_share=500)
    cleaned = artefact(940, 700, {"exact_copy": 200, "near_copy": 30, "not_in_mix": 10})
    select = artefact(700, 100, {"not_selected": 600}, **DEITA)
    steps = funnel_of(cell_of(select, pool=pool, clean_pool=cleaned))
    assert [(step.name, step.left) for step in steps[:4]] == [
        ("Read", 1500), ("Usable", 940), ("After cleaning", 700), ("Could be selected", 700),
    ]  # fmt: skip
    assert dict(steps[1].lost)["outside the instruction share"] == 500
    assert dict(steps[2].lost) == {
        "exact copies of another row": 200, "near copies of another row": 30, "not drawn for the mix": 10,
    }  # fmt: skip


def test_training_on_other_rows_is_no_step():
    select = artefact(940, 100, {"not_selected": 840}, **DEITA)
    other = artefact(77, 77, {})
    assert funnel_of(cell_of(select, sft=other, sft_data=other))[-1].name == "Kept"


def test_there_is_no_funnel_without_a_selection():
    assert funnel_of(Cell("base", {}, True, {"pool": artefact(**POOL)}, {})) == []
    assert funnel_of(Cell("base", {}, True, {}, {})) == []


def test_numbers_that_do_not_add_up_are_refused():
    select = artefact(940, 100, UNRANKED | {"not_selected": 800}, **DEITA | {"seen": 131})
    with pytest.raises(AssertionError, match="does not add up"):
        funnel_of(cell_of(select))


def test_the_section_has_each_step_below_its_reasons(run, undrawn):
    # The fake pool: 430 rows read, 400 usable; the walk passed over 25 rows for the 80 that it kept.
    section = funnel_section(read_summary(*run), ())
    assert section.text == (
        "Of 430 rows read, the base run kept 80 (18.6%), and SFT trained on 80. The budget was 80 rows. SFT read 4 "
        "rows only up to the maximal length."
    )
    assert section.tables[0].rows == (
        ("Read", "", "430"),
        ("empty reply", "\N{MINUS SIGN}20", ""),
        ("no user turn", "\N{MINUS SIGN}10", ""),
        ("Usable", "", "400"),
        ("Could be selected", "", "400"),
        ("not reached when the budget was met", "\N{MINUS SIGN}295", ""),
        ("Reached by the walk", "", "105"),
        (TOO_SIMILAR, "\N{MINUS SIGN}25", ""),
        ("Kept", "", "80"),
        ("Trained on by SFT", "", "80"),
    )


def test_the_figure_names_every_step_and_its_share(run):
    steps = funnel_of(read_summary(*run).base_cell)
    svg = funnel(steps)
    for text in ("Could be selected", "430", "400 (93.0%)", "105 (24.4%)", "80 (18.6%)", "left out"):
        assert f">{text}</text>" in svg
    assert svg == funnel(steps)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"share": 0.1}, " The budget was 10% of the pool's rows."),
        ({"tokens": 6000}, " The budget was 6,000 tokens."),
        (None, ""),
    ],
)
def test_the_section_names_the_budget_in_its_own_unit(run, undrawn, budget, words):
    edit_json(run[1] / "select-deita" / "metrics.json", lambda metrics: metrics.update(budget=budget))
    assert f"SFT trained on 80.{words} SFT read" in funnel_section(read_summary(*run), ()).text

import json
import shutil

import pytest

from deita_train.errors import UserError
from deita_train.report.page import write_report
from deita_train.report.results.groups import groups_of
from deita_train.report.results.result_measures import heldout_loss
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.all_sections import sections_of

SFT_FAILED = ["sft", "reference", "evaluate.sft", "evaluate_pairs.sft", "dpo", "evaluate.dpo", "evaluate_pairs.dpo"]


def lacking(summary):
    return {cell.label: [label for label in cell.planned if label not in cell.stages] for cell in summary.failed_cells}


def write_failures(run_dir, *artefacts):
    records = [
        {"artefact": name, "label": name.split("-")[0], "message": "no room", "user_error": False, "cells": []}
        for name in artefacts
    ]
    (run_dir / "failures.json").write_text(json.dumps(records))


def test_a_failed_cell_keeps_what_was_made(swept):
    summary = read_summary(*swept)
    assert lacking(summary) == {
        "random, budget 160, seed 3": SFT_FAILED,
        "deita, budget 40, seed 2": ["dpo", "evaluate.dpo", "evaluate_pairs.dpo"],
    }
    assert [(item.artefact, item.label, item.user_error) for item in summary.failures] == [
        ("sft-random-160-3", "sft", True), ("dpo-deita-40-2", "dpo", False),
    ]  # fmt: skip
    assert summary.failures[1].logs == swept[1] / ".work" / "dpo-deita-40-2" / "logs"


def test_an_older_artefact_of_a_failed_stage_is_no_result(swept):
    # SFT was to be rebuilt and failed; what the store still has of it and of its evaluation is from another run.
    write_failures(swept[0], "sft-random-160-3", "dpo-deita-40-2", "sft-deita-80-2")
    summary = read_summary(*swept)
    assert (swept[1] / "evaluate-sft-deita-80-2").exists()
    assert lacking(summary)["deita, budget 80, seed 2"] == SFT_FAILED
    # Seeds 1 and 3 are left: 2.29 and 2.31.
    assert groups_of(summary)[0].values("evaluate.sft", heldout_loss) == pytest.approx([2.29, 2.31])


@pytest.mark.parametrize("explained", [True, False])
def test_only_a_failure_explains_a_missing_artefact(swept, explained):
    if explained:
        shutil.rmtree(swept[1] / "evaluate-sft-deita-160-1")
        missing = "evaluate-sft-deita-160-1"
    else:
        (swept[0] / "failures.json").unlink()
        missing = "(sft-random-160-3|dpo-deita-40-2)"
    with pytest.raises(UserError, match=f"{missing}/manifest.json is missing"):
        read_summary(*swept)


def test_a_failure_of_an_artefact_that_no_cell_names_is_not_of_this_run(swept):
    write_failures(swept[0], "sft-random-160-3", "dpo-deita-40-2", "sft-of-another-recipe")
    assert len(read_summary(*swept).failures) == 2


def test_a_run_of_which_everything_failed_has_a_page(swept, undrawn):
    write_failures(swept[0], "pool-0", "base-0", "dpo_data", "heldout_pairs", "evaluate-base", "pairs-base")
    record = json.loads((swept[0] / "stages.json").read_text())
    for node in record["nodes"].values():
        node["parents"] = node["parents"] or {"pool": "pool-0"}
    (swept[0] / "stages.json").write_text(json.dumps(record))
    page = write_report(*swept).read_text()
    assert "21 of 21 cells failed, the base run among them" in page and "all\N{NO-BREAK SPACE}21" in page
    summary = read_summary(*swept)
    assert [section.title for section in sections_of(summary, groups_of(summary))] == ["Failed cells", "Recipe"]


def test_the_section_on_failures_says_which_why_and_what_to_do(swept):
    summary = read_summary(*swept)
    section = next(item for item in sections_of(summary, groups_of(summary)) if item.title == "Failed cells")
    (table,) = section.tables
    assert section.text.startswith("2 of 21 cells are incomplete.")
    (fix, again) = table.rows
    assert fix[:3] == ("random, budget 160, seed 3", "sft", "sft: [Errno 12] <out> of memory | at step 7")
    assert fix[3].startswith("Fix what the message names") and str(summary.failures[1].logs) in again[3]
    assert section.notes[0] == "Without dpo, evaluate.dpo, evaluate_pairs.dpo: deita, budget 40, seed 2."


def test_messages_of_failures_are_escaped(swept, undrawn):
    folder = write_report(*swept).parent
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    assert "[Errno 12] &lt;out&gt; of memory | at step 7" in page and "<out>" not in page
    assert r"\[Errno 12\] \<out\> of memory \| at step 7" in text
    assert "Say &lt;i&gt;hi&lt;/i&gt; | please" in page and "both answers &lt;equal&gt;" in page
    assert "21 cells, 2 of them failed" in page and "21 cells, 2 of them failed" in text

import json
import math

import pytest
from fake_run import edit_json

from deita_train.report.results.groups import groups_of
from deita_train.report.results.headline import headline
from deita_train.report.results.summary import read_summary
from deita_train.report.results.verdict import verdict
from deita_train.report.statistics import paired_difference


def set_accuracies(store, *accuracies):
    """What DPO reaches on the held-out pairs in the base run, seed by seed; SFT has 61%, 62% and 63%."""
    for seed, accuracy in enumerate(accuracies, start=1):
        path = store / f"evaluate_pairs-dpo-deita-80-{seed}" / "metrics.json"
        edit_json(path, lambda record, accuracy=accuracy: record["pairs"].update(accuracy=accuracy))


def paragraphs(run):
    summary = read_summary(*run)
    return verdict(summary, groups_of(summary))


def keep_seeds(run_dir, number):
    def change(record):
        record["cells"] = record["cells"][:number]

    edit_json(run_dir / "stages.json", change)


def test_paired_difference_by_hand():
    # Differences 6, 8, 10: mean 8, sd 2, t(0.975, 2) = 4.302653, half width 4.302653 * 2 / sqrt(3) = 4.968.
    found = paired_difference([6.0, 8.0, 10.0])
    half = 4.302653 * 2 / math.sqrt(3)
    assert found.mean == 8.0 and found.interval == pytest.approx((8 - half, 8 + half), abs=1e-5)
    assert paired_difference([3.0]).interval is None
    assert paired_difference([3.0, 3.0]).interval == (3.0, 3.0)


def test_dpo_that_raised_the_accuracy(swept):
    text = paragraphs(swept)[-1]
    assert text == (
        "DPO raised the held-out preference accuracy above the SFT model's: 70.0 ± 7.5% against 62.0 ± 2.5% after SFT; "
        "the 95% interval of the paired difference over 3 seeds, 3.0 to 13.0 percentage points, excludes zero. Its "
        "implicit reward prefers the chosen answer in 71.0 ± 2.5% of the pairs. The held-out loss after DPO is 2.350 ± "
        "0.025, higher than that after SFT."
    )


def test_the_pairing_by_seed_is_what_decides(swept):
    # The accuracies overlap widely, the differences of 3, 4 and 5 points hardly vary: 4 - 2.48 and 4 + 2.48.
    set_accuracies(swept[1], 0.64, 0.66, 0.68)
    assert "over 3 seeds, 1.5 to 6.5 percentage points, excludes zero" in paragraphs(swept)[-1]


def test_dpo_that_changed_nothing_for_sure(swept):
    # Differences -1, 1 and 3 points: mean 1, sd 2, interval -3.97 to 5.97.
    set_accuracies(swept[1], 0.60, 0.63, 0.66)
    text = paragraphs(swept)[-1]
    assert "raised" not in text and "over 3 seeds, \N{MINUS SIGN}4.0 to 6.0 percentage points, includes zero" in text
    assert "these seeds do not show that DPO changed it" in text


def test_dpo_that_lowered_the_accuracy(swept):
    set_accuracies(swept[1], 0.55, 0.56, 0.58)
    assert paragraphs(swept)[-1].startswith("DPO lowered the held-out preference accuracy below the SFT model's: ")


def test_a_single_seed_claims_no_certainty(swept):
    keep_seeds(swept[0], 1)
    text = paragraphs(swept)[-1]
    assert "67.0% against 61.0% after SFT; with a single seed, the spread between seeds is unknown" in text


def test_without_dpo_there_is_no_claim_on_it(swept):
    def change(record):
        for cell in record["cells"]:
            cell["stages"] = {label: name for label, name in cell["stages"].items() if "dpo" not in label}

    edit_json(swept[0] / "stages.json", change)
    text = paragraphs(swept)[-1]
    assert "the likelier one in 62.0 ± 2.5% of the held-out pairs (mean and 95% interval over 3 seeds)" in text
    assert "DPO" not in text


def test_dpo_without_sft_is_compared_with_the_untuned_model(swept):
    def change(record):
        for cell in record["cells"]:
            cell["stages"] = {
                label: name for label, name in cell["stages"].items() if label != "sft" and not label.endswith(".sft")
            }

    edit_json(swept[0] / "stages.json", change)
    _, losses, preferences = paragraphs(swept)
    assert "After DPO the held-out loss is 2.350 ± 0.025 nats per token" in losses
    # Differences 12, 15 and 18 points from 55%: 15 - 7.45 and 15 + 7.45.
    assert "above the untuned model's: 70.0 ± 7.5% against 55.0% before DPO" in preferences
    assert "over 3 seeds, 7.5 to 22.5 percentage points" in preferences
    assert "after SFT" not in losses + preferences


def test_losses_are_compared_with_the_best_group_and_with_the_whole_pool(swept):
    text = paragraphs(swept)[1]
    assert "It is 0.050 higher than that of deita, budget 160, the lowest of the 6 other groups" in text
    assert "It is 0.020 higher than that of training on the whole pool;" in text
    assert "(Welch), includes zero, so these seeds do not tell the two apart." in text


def test_random_rows_of_the_same_budget_are_a_reference_though_others_are_better(swept):
    text = paragraphs(swept)[1]
    assert "It is 0.150 lower than that of random, budget 80; the 95% interval of the difference" in text
    assert "random, budget 40" not in text and "random, budget 160" not in text


def test_failed_cells_come_first(swept):
    assert paragraphs(swept)[0].startswith("2 of 21 cells failed: the section Failed cells says why")


def test_a_failed_base_run_is_said_to_have_failed(swept):
    path = swept[0] / "failures.json"
    edit_json(path, lambda records: records.append(records[0] | {"artefact": "select-deita-80", "label": "select"}))
    keep_seeds(swept[0], 1)
    record = json.loads((swept[0] / "stages.json").read_text())
    assert record["nodes"]["sft-deita-80-1"]["parents"] == {"data": "select-deita-80"}
    summary = read_summary(*swept)
    assert verdict(summary, groups_of(summary)) == [
        "1 of 1 cell failed, the base run among them (at select): the section Failed cells says why, and the means "
        "leave out what is missing."
    ]
    assert [number.label for number in headline(summary, groups_of(summary))] == [
        "rank correlation of the scorers", "of wall time",
    ]  # fmt: skip


def test_the_headline_has_the_loss_and_the_last_models_accuracy(swept):
    summary = read_summary(*swept)
    numbers = headline(summary, groups_of(summary))
    assert [(number.label, number.value) for number in numbers[:2]] == [
        ("held-out loss after SFT", "2.300 ± 0.025"), ("preference accuracy after DPO", "70.0 ± 7.5%"),
    ]  # fmt: skip
    assert numbers[1].note == "after SFT: 62.0 ± 2.5%; higher is better" and len(numbers) == 4


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"budget": 90, "budget_wanted": 90}, "That is fewer than its budget of 90."),
        ({"budget": {"share": 0.25}, "budget_wanted": 90}, "That is fewer than its budget of 90 (25%)."),
        (
            {"budget": {"tokens": 9000}, "budget_wanted": 9000, "budget_found": 1234},
            "That is fewer than its budget of 9,000 tokens with 1,234.",
        ),
    ],
)
def test_a_budget_that_was_not_met(swept, metrics, sentence):
    run_dir, store = swept
    base = next(cell for cell in json.loads((run_dir / "stages.json").read_text())["cells"] if cell["base"])
    path = store / base["stages"]["select"] / "metrics.json"
    edit_json(path, lambda record: record.update(budget_met=False, rejected=0, **metrics))
    assert f" {sentence} " in " ".join(paragraphs(swept))
    found = {"threshold": 0.95, "walks": 7}
    edit_json(path, lambda record: record.update(rejected=5, sufficient_threshold=found))
    assert f"{sentence} A threshold of 0.950 would meet the budget (found in 7 walks)." in " ".join(paragraphs(swept))


def test_verdict_says_what_the_numbers_say(run):
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "kept 80 of the pool's 400 rows (20.0%) with the method deita" in text
    assert "2.300 ± 0.025 nats per token (mean and 95% interval over 3 seeds), lower than the 3.200 before it" in text
    assert "0.100 lower than that of random" in text and "excludes zero" in text


def test_verdict_turns_with_the_numbers(run):
    for seed, loss in enumerate((2.45, 2.41, 2.37), start=1):
        edit_json(
            run[1] / f"evaluate-deita-{seed}" / "metrics.json",
            lambda record, loss=loss: record["heldout"].update(loss_per_token=loss),
        )
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "0.010 higher than that of random" in text
    assert "includes zero, so these seeds do not tell the two apart" in text


def test_verdict_of_single_seeds_claims_no_certainty(run):
    def change(record):
        record["cells"] = [record["cells"][0], record["cells"][3]]

    edit_json(run[0] / "stages.json", change)
    summary = read_summary(*run)
    text = " ".join(verdict(summary, groups_of(summary)))
    assert "(one seed)" in text and "the spread between seeds is unknown" in text


def test_headline_has_at_most_four_numbers(run):
    summary = read_summary(*run)
    numbers = headline(summary, groups_of(summary))
    assert [number.label for number in numbers] == [
        "held-out loss after SFT",
        "rows kept",
        "near duplicate share of the kept rows",
        "rank correlation of the scorers",
    ]
    assert numbers[0].value == "2.300 ± 0.025" and numbers[3].value == "0.91 / 0.81"

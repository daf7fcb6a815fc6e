"""The figures that the reproduction recipes name are the paper's (arXiv 2312.15685v2), copied here from its tables."""

import re
from pathlib import Path

import pytest

from deita_train.recipe.loading import load_recipe

DEITA = Path(__file__).parents[2] / "recipes" / "deita"
# Table 6: MT-Bench, AlpacaEval.
TABLE_6 = {
    "LLaMA-1-13B, 10K": (6.60, 78.01),
    "LLaMA-2-13B, 10K": (6.79, 81.09),
    "Mistral-7B, 6K": (7.22, 80.78),
    "Mistral-7B, 10K": (7.32, 81.67),
    "Mistral-7B, 6K + DPO": (7.55, 90.06),
}
# Table 7: ARC, HellaSwag, MMLU, TruthfulQA, mean.
TABLE_7 = {
    "LLaMA-1-13B, 10K": (59.47, 82.01, 60.60, 55.03, 64.27),
    "LLaMA-2-13B, 10K": (58.87, 82.08, 55.33, 54.57, 62.71),
    "Mistral-7B, 6K": (57.76, 80.29, 61.90, 59.82, 64.94),
    "Mistral-7B, 6K + DPO": (66.21, 85.42, 60.66, 67.14, 69.86),
}
MISTRAL_6K = {"sft": "Mistral-7B, 6K"}
WITH_DPO = {**MISTRAL_6K, "dpo": "Mistral-7B, 6K + DPO"}
ROWS = {
    "deita-7b-v1.0": WITH_DPO,
    "deita-7b-v1.0-from-pool": WITH_DPO,
    "deita-7b-v1.0-from-seeds": WITH_DPO,
    "deita-7b-v1.0-sft-6k": MISTRAL_6K,
    "deita-7b-v1.0-sft-6k-from-pool": MISTRAL_6K,
    "deita-7b-v1.0-sft-10k": {"sft": "Mistral-7B, 10K"},
    "deita-7b-v1.0-sft-10k-from-pool": {"sft": "Mistral-7B, 10K"},
    "deita-llama1-13b-sft": {"sft": "LLaMA-1-13B, 10K"},
    "deita-llama1-13b-sft-from-pool": {"sft": "LLaMA-1-13B, 10K"},
    "deita-llama2-13b-sft": {"sft": "LLaMA-2-13B, 10K"},
}
TASKS = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "mean")


def test_every_recipe_is_known_here():
    assert {path.stem for path in DEITA.glob("*.yaml")} == set(ROWS)


def test_the_leaderboards_means_are_those_of_the_four_tasks():
    for *tasks, mean in TABLE_7.values():
        assert mean == pytest.approx(sum(tasks) / 4, abs=0.01)


@pytest.mark.parametrize("name", ROWS)
def test_each_model_stands_beside_its_own_row(name):
    found = {
        (entry.source, entry.model): entry.figures
        for entry in load_recipe(DEITA / f"{name}.yaml").recipe.report.published
    }
    expected = {}
    for model, row in ROWS[name].items():
        expected["DEITA paper, Table 6", model] = dict(zip(("mt_bench", "alpaca_eval"), TABLE_6[row], strict=True))
        if row in TABLE_7:
            figures = zip((f"lm_eval.{task}" for task in TASKS), TABLE_7[row], strict=True)
            expected["DEITA paper, Table 7", model] = dict(figures)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deita-llama1-13b-sft", [(6.46, 77.08)]),
        ("deita-llama2-13b-sft", [(6.65, 80.75)]),
        ("deita-llama1-13b-sft-from-pool", [(6.46, 77.08), (6.79, 81.09)]),
    ],
)
def test_the_commands_for_other_rows_name_those_rows(name, expected):
    """Table 6, 6K of each model, and LLaMA-2-13B on 10K."""
    text = (DEITA / f"{name}.yaml").read_text()
    settings = re.findall(r'^#     --set "(report\.published=.*)"$', text, re.MULTILINE)
    loaded = [load_recipe(DEITA / f"{name}.yaml", [setting]).recipe.report.published for setting in settings]
    assert [tuple(entry.figures.values()) for (entry,) in loaded] == expected

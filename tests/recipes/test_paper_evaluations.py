"""The evaluations that the reproduction recipes hold as comments are recipes once the comments are taken out."""

from pathlib import Path

import pytest
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.plan import inputs
from deita_train.plan.plan import make_plan

DEITA = Path(__file__).parents[2] / "recipes" / "deita"
FILES = sorted(path.name for path in DEITA.glob("*.yaml"))
MARK = "# The paper's evaluations"

pytestmark = pytest.mark.usefixtures("no_gpus")


def with_evaluations(text):
    """The recipe with its last block as YAML: what follows the mark's paragraph."""
    own, _, block = text.partition(MARK)
    assert block, "the recipe names no evaluations"
    lines = block.split("\n#\n", 1)[1].splitlines()
    assert all(line.startswith("# ") for line in lines)
    return own + "\n".join(line[2:] for line in lines) + "\n"


def test_every_reproduction_names_them():
    assert len(FILES) == 9


@pytest.mark.parametrize("file", FILES)
def test_they_plan_once_they_are_no_comments(tmp_path, monkeypatch, file):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "0" * 40)
    recipe = tmp_path / file
    text = (DEITA / file).read_text()
    recipe.write_text(with_evaluations(text))
    nodes = make_plan(recipe, [], tmp_path / "runs", planned_gpus=8).cells[0].nodes
    models = ["sft", "dpo"] if "dpo" in nodes else ["sft"]
    of_models = {label for label in nodes if label.rpartition(".")[2] in models and "." in label}
    benchmarks = ("lm_eval", "generate.mt_bench", "generate.alpaca_eval", "mt_bench", "alpaca_eval")
    assert {f"{benchmark}.{model}" for benchmark in benchmarks for model in models} == of_models
    plain = make_plan(DEITA / file, [], tmp_path / "runs", planned_gpus=8).cells[0].nodes
    assert {label: nodes[label].key for label in plain} == {label: node.key for label, node in plain.items()}

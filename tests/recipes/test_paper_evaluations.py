"""The evaluations that the reproduction recipes hold as comments are recipes once the comments are taken out."""

from pathlib import Path

import pytest
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.plan import inputs
from deita_train.plan.plan import make_plan
from deita_train.plan.unread import unread_lines

RECIPES = Path(__file__).parents[2] / "recipes"
DEITA = sorted(path.relative_to(RECIPES).as_posix() for path in (RECIPES / "deita").glob("*.yaml"))
# Table 7 needs no judge: its evaluation is no comment.
TABLES = sorted(
    path.relative_to(RECIPES).as_posix()
    for path in (RECIPES / "paper").glob("*.yaml")
    if not path.stem.startswith("table-7")
)
# What the paper measures beside MT-Bench.
BESIDE = {"table-5": ["alpaca_eval"], "table-6": ["alpaca_eval"]}
MARK = "# The paper's evaluations"

pytestmark = pytest.mark.usefixtures("no_gpus")


def with_evaluations(text):
    """The recipe with its last block as YAML: what follows the mark's paragraph."""
    own, _, block = text.partition(MARK)
    assert block, "the recipe names no evaluations"
    lines = block.split("\n#\n", 1)[1].splitlines()
    assert all(line.startswith("# ") for line in lines)
    return own + "\n".join(line[2:] for line in lines) + "\n"


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "0" * 40)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")


def plans(folder, file):
    """The plan without the evaluations and the one with them."""
    recipe = folder / Path(file).name
    recipe.write_text(with_evaluations((RECIPES / file).read_text()))
    return [make_plan(path, [], folder / "runs", planned_gpus=8) for path in (RECIPES / file, recipe)]


def measured(plan, models):
    """The labels of the benchmarks and of the answers to them in the base run."""
    return {label for label in plan.cells[0].nodes if "." in label and label.rpartition(".")[2] in models}


def test_every_reproduction_names_them():
    assert (len(DEITA), len(TABLES)) == (10, 17)


@pytest.mark.parametrize("file", DEITA)
def test_they_plan_once_they_are_no_comments(tmp_path, file):
    plain, full = plans(tmp_path, file)
    nodes = full.cells[0].nodes
    models = ["sft", "dpo"] if "dpo" in nodes else ["sft"]
    benchmarks = ("lm_eval", "generate.mt_bench", "generate.alpaca_eval", "mt_bench", "alpaca_eval")
    assert {f"{benchmark}.{model}" for benchmark in benchmarks for model in models} == measured(full, models)
    assert {node.key for node in plain.nodes} <= {node.key for node in full.nodes}


@pytest.mark.parametrize("file", TABLES)
def test_every_cell_of_a_table_is_judged(tmp_path, file):
    plain, full = plans(tmp_path, file)
    benchmarks = ["mt_bench", *BESIDE.get(Path(file).stem[:7], [])]
    assert measured(full, ["sft"]) == {f"{way}{name}.sft" for name in benchmarks for way in ("generate.", "")}
    judged = [cell.nodes["mt_bench.sft"].key for cell in full.cells]
    assert len(judged) == len(plain.cells) and len(set(judged)) == len({cell.nodes["sft"].key for cell in plain.cells})
    assert {node.key for node in plain.nodes} <= {node.key for node in full.nodes}
    assert unread_lines(full) == []

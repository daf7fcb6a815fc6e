"""The recipes of the paper's tables and of its Figure 2: they plan, and stand beside the paper's own figures.

The figures are copied here by hand from arXiv 2312.15685v2. Nothing here touches the network.
"""

import re
from pathlib import Path

import pytest
from recipe_files import RECIPES, commands, files_below, header, parsed

from deita_train.plan import inputs
from deita_train.plan.plan import make_plan
from deita_train.plan.unread import unread_lines
from deita_train.recipe.loading import load_recipe

FILES = files_below("paper")
SEEDS = "deita/deita-7b-v1.0-from-seeds.yaml"
BASE = None  # the base run: the recipe as written
AT_10K = (("select.budget", 10000),)


def of(method, *more):
    """The cell of a method, as pairs of path and value."""
    return (("select.method", method), *more)


# MT-Bench by cell. X_sota, then X_base.
TABLE_2 = {
    BASE: (6.27, 5.57),
    of("ifd"): (5.91, 2.46),
    of("perplexity"): (4.06, 1.89),
    of("longest_instruction"): (5.89, 4.00),
    of("random"): (5.84, 4.93),
}
TABLE_2_50K = {BASE: (5.73, 5.29), of("direct_score"): (5.16, 4.87)}
TABLE_3 = {BASE: (6.19, 5.67), of("longest_response"): (5.94, 5.65), of("random"): (5.84, 4.93)}
TABLE_3_50K = {BASE: (5.85, 5.29), of("direct_score"): (5.61, 4.44)}
TABLE_4 = {BASE: (6.17, 4.68), of("random"): (5.82, 4.34)}
TABLE_4_INSTAG = {BASE: (6.10, 4.46)}
# MT-Bench and AlpacaEval.
TABLE_5 = {
    BASE: (6.46, 77.08),
    of("random"): (5.84, 73.91),
    of("direct_score"): (5.61, 71.21),
    of("instag"): (6.09, 72.80),
}
TABLE_6 = {
    "llama1-13b": {BASE: (6.46, 77.08), of("deita", *AT_10K): (6.60, 78.01), of("random", *AT_10K): (6.03, 71.52)},
    "llama2-13b": {BASE: (6.65, 80.75), of("deita", *AT_10K): (6.79, 81.09), of("random", *AT_10K): (5.78, 65.19)},
    "mistral-7b": {BASE: (7.22, 80.78), of("deita", *AT_10K): (7.32, 81.67), of("random", *AT_10K): (5.89, 56.90)},
}
# ARC, HellaSwag, MMLU, TruthfulQA, mean; by model of the recipe and cell.
TABLE_7 = {
    "llama1-13b": {("sft", BASE): (59.47, 82.01, 60.60, 55.03, 64.27)},
    "llama2-13b": {("sft", BASE): (58.87, 82.08, 55.33, 54.57, 62.71)},
    "mistral-7b": {
        ("sft", BASE): (57.76, 80.29, 61.90, 59.82, 64.94),
        ("dpo", BASE): (66.21, 85.42, 60.66, 67.14, 69.86),
        ("sft", of("random")): (55.38, 79.16, 58.73, 53.59, 61.72),
    },
}
# The values at these budgets are those of Tables 5 and 6.
FIGURE_2 = {
    ("DEITA paper, Table 6", of("deita", ("select.budget", 6000))): 6.46,
    ("DEITA paper, Table 6", of("deita", *AT_10K)): 6.60,
    ("DEITA paper, Table 5", of("random", ("select.budget", 6000))): 5.84,
    ("DEITA paper, Table 6", of("random", *AT_10K)): 6.03,
}
TASKS = tuple(f"lm_eval.{task}" for task in ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "mean"))
BY_POOL = {
    "table-2-complexity{}": TABLE_2,
    "table-2-complexity{}-50k": TABLE_2_50K,
    "table-3-quality{}": TABLE_3,
    "table-3-quality{}-50k": TABLE_3_50K,
    "table-4-diversity{}": TABLE_4,
    "table-4-diversity{}-instag": TABLE_4_INSTAG,
}


def expected_figures():
    """By recipe, then by source, model and cell: the figures by measure."""
    found = {}
    for name, rows in BY_POOL.items():
        source = f"DEITA paper, Table {name[6]}"
        for place, suffix in enumerate(("", "-x-base")):
            figures = {(source, "sft", cell): {"mt_bench": values[place]} for cell, values in rows.items()}
            found[name.format(suffix)] = figures
    for name, table, rows in [("table-5-selectors", 5, TABLE_5), *((f"table-6-{m}", 6, r) for m, r in TABLE_6.items())]:
        found[name] = {
            (f"DEITA paper, Table {table}", "sft", cell): {"mt_bench": rating, "alpaca_eval": wins}
            for cell, (rating, wins) in rows.items()
        }
    for model, rows in TABLE_7.items():
        found[f"table-7-{model}"] = {
            ("DEITA paper, Table 7", *where): dict(zip(TASKS, values, strict=True)) for where, values in rows.items()
        }
    found["figure-2-budgets"] = {
        (source, "sft", cell): {"mt_bench": value} for (source, cell), value in FIGURE_2.items()
    }
    return found


EXPECTED = expected_figures()
# The training of each, as the recipes of the released models have it; their values are checked in test_recipes.py.
TRAINED_AS = {
    "llama1-13b": "deita/deita-llama1-13b-sft-from-pool.yaml",
    "llama2-13b": "deita/deita-llama2-13b-sft.yaml",
    "mistral-7b": "deita/deita-7b-v1.0-sft-6k-from-pool.yaml",
}

BUDGETS = {"figure-2-budgets": 1000, "table-7-llama1-13b": 10000, "table-7-llama2-13b": 10000}  # others 6,000


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A Hub that has one commit of everything, and a key for the chat model."""
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "0" * 40)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(file, folder, *sets):
    return make_plan(RECIPES / file, sets, folder / "runs", planned_gpus=8)


def recipe_of(file):
    return load_recipe(RECIPES / file).recipe


def test_every_table_is_known_here():
    assert {Path(file).stem for file in FILES} == set(EXPECTED)
    assert len(FILES) == 20


def test_the_leaderboards_means_are_those_of_the_four_tasks():
    for rows in TABLE_7.values():
        for *tasks, mean in rows.values():
            assert mean == pytest.approx(sum(tasks) / 4, abs=0.01)


@pytest.mark.parametrize("file", FILES)
def test_the_published_figures_are_the_papers(file):
    entries = recipe_of(file).report.published
    found = {
        (entry.source, entry.model, BASE if entry.cell is None else tuple(entry.cell.items())): entry.figures
        for entry in entries
    }
    assert len(found) == len(entries)
    assert found == EXPECTED[Path(file).stem]


@pytest.mark.parametrize("file", FILES)
def test_it_is_planned_and_every_section_is_read(file, folder):
    plan = planned(file, folder)
    assert unread_lines(plan) == []
    published = {cell for _, model, cell in EXPECTED[Path(file).stem] if model == "sft"}
    if file != "paper/figure-2-budgets.yaml":  # each cell has its row of the table
        assert len(plan.cells) == len(published)
    assert all("sft" in cell.nodes for cell in plan.cells)
    assert len({cell.nodes["sft"].key for cell in plan.cells}) == len(plan.cells) - ("figure" in file)


@pytest.mark.parametrize("file", FILES)
def test_rows_are_trained_on_as_in_the_recipes_of_the_released_models(file):
    name = next((model for model in TRAINED_AS if file.endswith(f"{model}.yaml")), "llama1-13b")
    own, other = recipe_of(file), recipe_of(TRAINED_AS[name])
    assert own.sft.model_dump(exclude={"data"}) == other.sft.model_dump(exclude={"data"})
    assert own.seed == other.seed == 42
    whole = recipe_of("deita/deita-7b-v1.0-from-pool.yaml")
    assert own.dpo in (None, whole.dpo) and (own.dpo is None) == (file != "paper/table-7-mistral-7b.yaml")
    assert own.embedding in (None, whole.embedding)
    for dimension in ("complexity", "quality"):
        assert getattr(own.scorers, dimension) in (None, getattr(whole.scorers, dimension))
    assert own.select.threshold == 0.9
    assert own.select.budget == BUDGETS.get(Path(file).stem, 6000)


def test_what_tables_share_is_made_once(folder):
    keys = {
        file: {cell.label: cell.nodes["sft"].key for cell in planned(file, folder).cells}
        for file in [*FILES, *TRAINED_AS.values()]
    }
    mistral, llama = keys["paper/table-6-mistral-7b.yaml"], keys["paper/table-6-llama1-13b.yaml"]
    assert mistral["base run"] == keys[TRAINED_AS["mistral-7b"]]["base run"]
    assert mistral["base run"] == keys["paper/table-7-mistral-7b.yaml"]["base run"]
    assert mistral["random, budget 10000"] == keys["paper/table-7-mistral-7b.yaml"]["random, budget 10000"]
    assert llama["base run"] == keys["paper/table-5-selectors.yaml"]["base run"]
    assert llama["deita, budget 10000"] == keys[TRAINED_AS["llama1-13b"]]["base run"]
    assert llama["deita, budget 10000"] == keys["paper/table-7-llama1-13b.yaml"]["base run"]
    assert llama["base run"] == keys["paper/figure-2-budgets.yaml"]["deita, budget 6000"]
    randoms = {keys[f"paper/table-{table}.yaml"]["random"] for table in ("2-complexity", "3-quality", "5-selectors")}
    assert randoms == {keys["paper/figure-2-budgets.yaml"]["random, budget 6000"]}


@pytest.mark.parametrize("file", FILES)
def test_the_pool_is_the_released_one(file):
    pool = recipe_of(file).pool
    assert pool.dataset == ("hkust-nlp/deita-redundant-pool-data" if "x-base" in file else "AndrewZeng/deita_sota_pool")
    assert pool.rows == (50_000 if file.endswith("-50k.yaml") else None)


@pytest.mark.parametrize("file", [*FILES, SEEDS])
def test_its_header_says_what_a_reader_needs(file, folder, monkeypatch):
    text = "\n".join(header(file))
    for label in ("Reproduces", "Reported", "Hardware", "Not known", "Sources"):
        assert re.search(rf"^ {label}\s", text, re.MULTILINE), label
    found = commands(file)
    assert [words[:3] for words in found] == [
        ["deita-train", verb, f"recipes/{file}"] for verb in ("run", "plan", "run")
    ]
    for words in found:
        _, sets, until, gpus = parsed(words, monkeypatch)
        assert make_plan(RECIPES / file, sets, folder / "runs", until, gpus or 8).nodes


def test_the_recipe_from_seeds_has_the_papers_values(folder):
    recipe, whole = recipe_of(SEEDS), recipe_of("deita/deita-7b-v1.0-from-pool.yaml")
    assert (recipe.evolve.seeds.dataset, recipe.evolve.seeds.rows) == ("tatsu-lab/alpaca", 2000)
    assert recipe.evolve.complexity.evolutions == recipe.evolve.quality.evolutions == 5
    assert recipe.evolve.heldout_share == 0.05
    for scorer in (recipe.scorers.complexity, recipe.scorers.quality):
        train = scorer.train
        assert (train.data, train.model, train.max_length) == ("evolve", "huggyllama/llama-7b", 2048)
        assert (train.global_batch_size, train.launch) == (512, "zero2")
        values = {"learning_rate": 2e-5, "num_train_epochs": 6, "lr_scheduler_type": "cosine", "warmup_steps": 0.1}
        assert train.trainer == values
    for section in ("pool", "embedding", "select", "sft", "dpo", "report"):
        assert getattr(recipe, section) == getattr(whole, section)
    assert unread_lines(planned(SEEDS, folder)) == []

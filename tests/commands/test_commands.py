"""The single commands up to what they start: the recipe that options become, where it is kept, what is refused."""

import json

import pytest
from tiny_recipe import no_gpus  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands import finishing, single
from deita_train.commands.options import place, place_of_file
from deita_train.errors import UserError
from deita_train.plan.plan import make_plan, run_folder, store_folder
from deita_train.recipe.yaml_source import load_yaml
from deita_train.selection.trace.fewer_than_budget import fewer_than_budget

pytestmark = pytest.mark.usefixtures("no_gpus")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a pool, a model that is one by its looks, and scores and embeddings of the pool."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEITA_RUNS", raising=False)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    for name in ("pool", "data", "heldout", "pairs"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "a"}\n')
    for name in ("complexity", "quality"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "a", f"{name}_scores": [1]}) + "\n")
    (tmp_path / "vectors.parquet").write_text("")
    return tmp_path


class Started(Exception):
    """What a command would carry out."""


@pytest.fixture
def started(monkeypatch):
    def carry_out(request, runs, outputs, console):
        raise Started(request, runs, outputs)

    monkeypatch.setattr(finishing, "carry_out", carry_out)


def command(line):
    """Carry out `deita-train <line>`; raises what it raises."""
    answer = CliRunner().invoke(app, line.split(), catch_exceptions=True)
    if isinstance(answer.exception, Exception):
        raise answer.exception
    assert answer.exit_code == 0, answer.output
    return answer


PASS = "--dtype float32 --max-batch-tokens 512 --launch cpu"
TRAIN = "--batch 8 --trainer learning_rate=2e-5 --trainer max_length=null --launch cpu --seed 3"
TRAINED = {"global_batch_size": 8, "launch": "cpu", "seed": 3, "trainer": {"learning_rate": 2e-5, "max_length": None}}
PASSED = {"dtype": "float32", "max_batch_tokens": 512, "launch": "cpu"}
# The command, the label of its stage, and the recipe, with {here} for the working folder.
RECIPES = [
    (
        "score pool.jsonl --dimension complexity --model m --output o.jsonl",
        "score.complexity",
        {"pool": {"dataset": "{here}/pool.jsonl"}, "scorers": {"complexity": {"model": "{here}/m"}}},
    ),
    (
        f"score org/pool --dimension quality --model org/m --output o.jsonl {PASS} --set pool.split=train",
        "score.quality",
        {
            "pool": {"dataset": "org/pool", "split": "train"},
            "scorers": {"quality": {"model": "org/m", **PASSED}},
        },
    ),
    (
        f"embed pool.jsonl --model m --output o --chat-template mine.jinja {PASS} --set embedding.max_length=1024",
        "embed",
        {
            "pool": {"dataset": "{here}/pool.jsonl"},
            "embedding": {"model": "{here}/m", "chat_template": "mine.jinja", **PASSED, "max_length": 1024},
        },
    ),
    (
        "select pool.jsonl --scores quality.jsonl --scores complexity.jsonl --embeddings vectors.parquet --budget 5 "
        "--output o.jsonl",
        "select",
        {
            "pool": {"dataset": "{here}/pool.jsonl"},
            "scores": {"quality": "{here}/quality.jsonl", "complexity": "{here}/complexity.jsonl"},
            "embeddings": {"file": "{here}/vectors.parquet"},
            "select": {"method": "deita", "budget": 5, "allow_fewer": True},
        },
    ),
    (
        "select pool.jsonl --scores quality.jsonl --embeddings vectors.parquet --center --threshold 0.8 --budget 5 "
        "--output o.jsonl --set select.score=quality --set select.allow_fewer=false",
        "select",
        {
            "pool": {"dataset": "{here}/pool.jsonl"},
            "scores": {"quality": "{here}/quality.jsonl"},
            "embeddings": {"file": "{here}/vectors.parquet", "center": True},
            "select": {"method": "deita", "budget": 5, "threshold": 0.8, "allow_fewer": False, "score": "quality"},
        },
    ),
    (
        "select pool.jsonl --method random --seed 3 --budget 5 --output o.jsonl",
        "select",
        {
            "pool": {"dataset": "{here}/pool.jsonl"},
            "select": {"method": "random", "budget": 5, "seed": 3, "allow_fewer": True},
        },
    ),
    (
        "select pool.jsonl --method random --seed 3 --budget 5 --output o.jsonl --compare longest_response,ifd "
        "--embeddings vectors.parquet --scores quality.jsonl --set select.column=c",
        "compare",
        {
            "pool": {"dataset": "{here}/pool.jsonl"},
            "scores": {"quality": "{here}/quality.jsonl"},
            "embeddings": {"file": "{here}/vectors.parquet"},
            "select": {"method": "random", "budget": 5, "seed": 3, "allow_fewer": True, "column": "c"},
            "compare": {"methods": ["longest_response", "ifd"]},
        },
    ),
    (
        f"train-scorer --dimension quality --data data.jsonl --heldout heldout.jsonl --model m {TRAIN}",
        "train_scorer.quality",
        {
            "scorers": {
                "quality": {
                    "train": {
                        "data": {"dataset": "{here}/data.jsonl"},
                        "heldout": {"dataset": "{here}/heldout.jsonl"},
                        "model": "{here}/m",
                        **TRAINED,
                    }
                }
            }
        },
    ),
    (
        f"sft --data data.jsonl --model m --output copy {TRAIN}",
        "sft",
        {"sft": {"data": {"dataset": "{here}/data.jsonl"}, "model": "{here}/m", **TRAINED}},
    ),
    (
        f"dpo --preferences pairs.jsonl --model m {TRAIN}",
        "dpo",
        {"dpo": {"preferences": {"dataset": "{here}/pairs.jsonl"}, "model": "{here}/m", **TRAINED}},
    ),
    (
        "evaluate --model m --questions data.jsonl --output o.jsonl",
        None,
        {"evaluate": {"model": "{here}/m", "answers": {"questions": {"dataset": "{here}/data.jsonl"}}}},
    ),
    (
        f"evaluate --model m --heldout heldout.jsonl --preferences pairs.jsonl --chat-template vicuna_v1.1 {PASS}",
        None,
        {
            "evaluate": {
                "model": "{here}/m",
                "heldout": {"dataset": "{here}/heldout.jsonl"},
                "preferences": {"dataset": "{here}/pairs.jsonl"},
                "chat_template": "vicuna_v1.1",
                **PASSED,
            }
        },
    ),
]


@pytest.mark.parametrize(("line", "label", "recipe"), RECIPES, ids=[line.split()[0] for line, *_ in RECIPES])
def test_options_become_a_recipe(here, started, line, label, recipe):
    with pytest.raises(Started) as caught:
        command(f"{line} --runs elsewhere")
    request, runs, outputs = caught.value.args
    assert request.sections() == json.loads(json.dumps(recipe).replace("{here}", str(here)))
    assert (request.name, request.label, str(runs)) == (line.split()[0], label, "elsewhere")
    files = [] if label != "compare" else [f"o.compare.{suffix}" for suffix in ("md", "json", "png")]
    assert [str(output.path) for _, output in outputs][1:] == files
    assert bool(outputs) == ("--output" in line)


def lay_out(here, name, label, sets=(), **fields):
    """The plan of a command whose options state these fields, as `section__key=value`."""
    stated = {field.replace("__", "."): value for field, value in fields.items()}
    return single.lay_out(single.Single(name, label, stated, dict.fromkeys(stated, "--option"), sets), here / "runs")


SFT = {"sft__data__dataset": "data.jsonl", "sft__model": "m", "sft__global_batch_size": 8}


def test_the_recipe_is_kept_where_its_run_is(here):
    plan = lay_out(here, "sft", "sft", **SFT)
    path = plan.loaded.path
    assert path.parent.parent == here / "runs" / "commands" and plan.run_dir == path.parent
    assert path.parent.name == plan.loaded.recipe.name and path.parent.name.startswith("sft-")
    data, _ = load_yaml(path)
    section = {"data": {"dataset": "data.jsonl"}, "model": "m", "global_batch_size": 8}
    assert data == {"name": path.parent.name, "sft": section}
    assert path.read_text().startswith("# The recipe of one `deita-train sft`; ")
    assert [node.label for node in plan.nodes] == ["sft_data", "sft"]
    assert store_folder(plan.run_dir) == plan.store.folder
    # As an ordinary recipe it has the same stages and the same folder.
    ordinary = make_plan(path, [], here / "runs")
    assert ordinary.run_dir.samefile(plan.run_dir)
    assert [node.id for node in ordinary.nodes] == [node.id for node in plan.nodes]


def test_equal_options_are_one_recipe(here):
    plans = [lay_out(here, "sft", "sft", sets, **SFT) for sets in ((), (), ("sft.seed=1",))]
    assert plans[0].run_dir == plans[1].run_dir != plans[2].run_dir
    assert len(list((here / "runs" / "commands").iterdir())) == 2
    data = [plan.cells[0].nodes["sft_data"].id for plan in plans]
    assert data[0] == data[1] == data[2]


def test_a_stage_that_nothing_asked_for_is_left_out(here):
    """Both dimensions lie in one file, and the method ranks by one."""
    files = {"scores__complexity": "quality.jsonl", "scores__quality": "quality.jsonl"}
    fields = {"pool__dataset": "pool.jsonl", **files, "select__method": "quality", "select__budget": 1}
    assert [node.label for node in lay_out(here, "select", "select", **fields).nodes] == [
        "pool",
        "scores.quality",
        "select",
    ]


def test_a_run_keeps_its_record_under_its_name(tmp_path):
    runs = tmp_path / "runs"
    assert run_folder(runs, tmp_path / "recipe.yaml", "mine") == runs / "mine"
    assert run_folder(runs, runs / "commands" / "other" / "recipe.yaml", "mine") == runs / "mine"
    assert run_folder(runs, runs / "commands" / "mine" / "recipe.yaml", "mine") == runs / "commands" / "mine"
    assert store_folder(runs / "mine") == store_folder(runs / "commands" / "mine") == runs / "store"


SCORED = "select pool.jsonl --scores complexity.jsonl --scores quality.jsonl --output o.jsonl"
COMPARED = "select pool.jsonl --method random --budget 1 --output o.jsonl --compare"
TUNED = "sft --data data.jsonl --model m"
MISTAKES = [
    ("score none.jsonl --dimension quality --model m --output o.jsonl", "POOL: none.jsonl does not exist (looked in "),
    ("score pool.jsonl --dimension quality --model ./m2 --output o.jsonl", "--model: ./m2 is neither a folder"),
    (
        "embed pool.jsonl --model m --output o.jsonl --dtype fp16",
        "--dtype: 'fp16' is not allowed; expected auto, float32 or",
    ),
    ("embed pool.jsonl --model m --output o.jsonl --launch gpus", "--launch: gpus is unknown; allowed: cpu, "),
    ("embed pool.jsonl --model m --output o.jsonl --chat-template mine", "--chat-template: mine is unknown; allowed: "),
    (
        "embed pool.jsonl --model m --output o.jsonl --max-batch-tokens 0",
        "--max-batch-tokens: 0 is a whole number; expected more",
    ),
    (
        "embed pool.jsonl --model m --output o.jsonl --set embedding.max_lenght=3",
        "--set embedding.max_lenght=3: embedding.max_lenght: unknown key (did you mean max_length?)",
    ),
    ("embed pool.jsonl --model m --output o.csv", "--output o.csv: a file ends in one of .json, "),
    ("embed pool.jsonl --model m --output no/o.json", "--output no/o.json: the folder "),
    (
        "embed pool.jsonl --model m --output data.jsonl",
        "--output data.jsonl is there already. Give another name, or --over",
    ),
    (
        "embed pool.jsonl --model m --output pool.jsonl --overwrite",
        "--output pool.jsonl is also POOL. Give another name.",
    ),
    ("select pool.jsonl --method random --output o.jsonl", "--budget: method random needs budget:, the rows to keep"),
    (
        "select pool.jsonl --method randum --budget 1 --output o.jsonl",
        "--method: 'randum' is not allowed (did you mean random?)",
    ),
    (
        "select pool.jsonl --budget 1 --output o.jsonl",
        "--scores: --method deita ranks by complexity and quality, and no file",
    ),
    (
        "select pool.jsonl --budget 1 --scores quality.jsonl --output o.jsonl",
        "--scores: --method deita ranks by complexity and quality, and no file has complexity_scores. Name what",
    ),
    (f"{SCORED} --budget 1", "--embeddings: --method deita needs it. Name what `deita-train embed` wrote."),
    (f"{SCORED} --budget 1 --method random", "--scores: would have no effect with --method random; leave it out."),
    (
        f"{SCORED} --budget 1 --method evol_score --threshold 0.5",
        "--threshold: would have no effect with --method evol_score",
    ),
    (f"{SCORED} --budget 1 --embeddings vectors.parquet --seed 1", "--seed: would have no effect with --method deita"),
    (
        f"{SCORED} --budget 1 --scores quality.jsonl",
        "--scores: quality.jsonl and quality.jsonl both hold quality_scores",
    ),
    (
        f"{SCORED} --budget 1 --scores data.jsonl",
        "--scores data.jsonl: has neither complexity_scores nor quality_scores;",
    ),
    (f"{SCORED} --budget 1 --scores none.jsonl", "--scores none.jsonl: does not exist (looked in "),
    (f"{SCORED} --budget many", "--budget many: give a number of rows (6000), a share of the pool's rows (2%) or a"),
    (f"{SCORED} --budget 0", "--budget 0: it must be at least 1."),
    (
        f"{SCORED} --budget 1 --embeddings vectors.parquet --tokenizer m",
        "--tokenizer: would have no effect with this --budget, which counts no tokens; leave it out.",
    ),
    (
        f"{SCORED} --embeddings vectors.parquet --budget 900tokens",
        "--tokenizer: a --budget of tokens needs it. Name the model that will be trained.",
    ),
    (
        f"{SCORED} --embeddings vectors.parquet --budget 9 --set select.only_trained_turns=true",
        "--tokenizer: select.only_trained_turns needs it. Name the model that will be trained.",
    ),
    (f"{SCORED} --budget 1 --set sweep.select.budget=[1]", "--set sweep: deita-train select makes one result; write a"),
    (f"{COMPARED} randum", "--compare: 'randum' is not allowed (did you mean random?)"),
    (f"{COMPARED} quality,quality", "--compare: quality is named twice; name each method once"),
    (f"{COMPARED} quality,random", "--compare: random is the method of the selection itself; leave it out"),
    (f"{COMPARED} whole_pool", "--compare: whole_pool is in the tables as it is; leave it out"),
    (f"{COMPARED} quality", "--scores: --compare quality ranks by quality, and no file has quality_scores. Name what"),
    (f"{COMPARED} k_center", "--embeddings: --compare k_center needs it. Name what `deita-train embed` wrote."),
    (
        f"{COMPARED} longest_response,ifd",
        "--compare ifd: reads a column. Name the pool's own: --set select.column=NAME, or the model that measures it: "
        "--set perplexity.model=MODEL.",
    ),
    (f"{COMPARED} instag", "--compare instag: reads a column. Name the pool's own: --set select.column=NAME."),
    (
        f"{COMPARED} ifd,direct_score --set select.column=c",
        "--compare: ifd and direct_score would all read select.column c; name the column of each compared method by",
    ),
    (f"{COMPARED} ifd --set compare.columns.mig=c", "--compare: columns.mig: mig is not compared; leave it out"),
    (
        f"{COMPARED} longest_response --threshold 0.5",
        "--threshold: would have no effect with --method random and --compare longest_response; leave it out.",
    ),
    (f"{TUNED} --batch 0", "--batch: 0 is a whole number; expected more than 0"),
    (f"{TUNED} --batch 3 --launch cpu_ddp", "--batch: 3 is not a multiple of 2 (2 ranks)"),
    (f"{TUNED} --batch 8 --trainer learning_rat=1", "--trainer learning_rat: unknown field of SFTConfig"),
    (f"{TUNED} --batch 8 --trainer packing=true", "--trainer packing: set by the framework"),
    (f"{TUNED} --batch 8 --trainer max_length", "--trainer max_length: write it as field=value"),
    (f"{TUNED} --batch 8 --trainer max_length=[1", "--trainer max_length: not YAML: "),
    (f"{TUNED} --batch 8 --output m --overwrite", "--output m is also --model. Give another name."),
    ("evaluate --model m", "--heldout, --preferences, --questions: state one or more of heldout:, preferences:, "),
    ("evaluate --model m --questions data.jsonl --output o.txt", "--output o.txt: a file ends in one of"),
    (
        "evaluate --model m --heldout data.jsonl --output o.jsonl",
        "--output o.jsonl: is where the answers to --questions",
    ),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_terms_of_the_options(here, monkeypatch, line, message):
    monkeypatch.setattr(single, "build_stages", lambda *arguments: pytest.fail("the work has begun"))
    with pytest.raises(UserError) as caught:
        command(line)
    assert str(caught.value).startswith(message) and "recipe.yaml" not in str(caught.value)
    if "--output" not in message:
        assert not (here / "runs" / "commands").exists()


def test_the_numbers_of_a_selection_that_found_too_few():
    metrics = {
        "budget_met": False, "budget": 1000, "budget_wanted": 1000, "budget_found": 12, "rows_in": 1200, "rows_out": 12,
        "rejected": 1100, "threshold": 0.9, "nearest_similarity": {"0.5": 0.98765, "1": 1.0},
        "sufficient_threshold": {"threshold": 0.996, "walks": 7},
    }  # fmt: skip
    assert fewer_than_budget(metrics, "--threshold") == (
        "12 of the budget of 1,000 rows were kept out of 1,200; 1,100 were too similar to a kept one (--threshold 0.9)."
        " Similarity to the nearest kept row by quantile: 0.5: 0.988, 1: 1.000. A threshold of 0.996 would meet the "
        "budget (found in 7 walks). Where all similarities are close to 1, centring the embeddings helps more."
    )
    tokens = {**metrics, "budget": {"tokens": 90_000}, "budget_found": 1234, "sufficient_threshold": None}
    told = fewer_than_budget(tokens)
    assert told.startswith("12 rows with 1,234 of the budget of 90,000 tokens were kept out of 1,200; 1,100 were too ")
    assert "(select.threshold 0.9)" in told
    assert told.endswith("1: 1.000. No threshold would meet the budget: the pool has too little for it.")
    assert "Only a threshold of 1" in fewer_than_budget(
        {**metrics, "sufficient_threshold": {"threshold": 1.0, "walks": 7}}
    )
    small = {**metrics, "rejected": 0, "nearest_similarity": {}}
    assert fewer_than_budget(small).endswith("out of 1,200; there are no more that can be ranked.")
    assert fewer_than_budget({**metrics, "budget_met": True}) is None


def test_places_do_not_depend_on_the_working_folder(here):
    (here / "mine.yaml").write_text("")
    (here / "ddp").mkdir()
    assert place("pool.jsonl") == str(here / "pool.jsonl") == place(str(here / "pool.jsonl"))
    assert place("org/pool") == "org/pool"
    assert place_of_file("mine.yaml") == str(here / "mine.yaml")
    assert place_of_file("ddp") == "ddp" and place_of_file("other.yaml") == "other.yaml"

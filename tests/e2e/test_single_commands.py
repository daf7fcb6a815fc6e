"""The single commands on a miniature model: the numbers of a recipe, no work twice, and a kill that loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import pytest
from smoke_run import run_environment
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.data.builtin import builtin_conversations, builtin_preferences
from deita_train.data.sources import iter_rows
from deita_train.plan import launch
from deita_train.plan.plan import make_plan
from deita_train.run.runner import build_stages
from deita_train.training.miniature import make_model, train_tokenizer

NUM_ROWS, BUDGET, THRESHOLD = 48, 20, 0.6
SELECT = f"select pool.jsonl --scores c.jsonl.gz --scores q.parquet --embeddings vectors --center --budget {BUDGET}"


def write(path, rows):
    path.write_text("".join(json.dumps(row.row) + "\n" for row in rows))


def read(path):
    return [row.row for row in iter_rows(str(path))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder with a model, a pool and pairs; the environment as before at the end."""
    folder = tmp_path_factory.mktemp("user")
    conversations = builtin_conversations("quickstart", NUM_ROWS, 5)
    template = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
    texts = [message["content"] for row in conversations for message in row.row["messages"]]
    tokenizer = train_tokenizer(texts, 500, template, folder / "model")
    shape = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "context_length": 1024}
    make_model(tokenizer, **shape, seed=1, folder=folder / "model")
    write(folder / "pool.jsonl", conversations)
    write(folder / "pairs.jsonl", builtin_preferences("quickstart_preferences", 8, 5))
    with patch.dict(os.environ, {**run_environment(), "CUDA_VISIBLE_DEVICES": ""}):
        os.environ.pop("DEITA_RUNS", None)
        forget_launches()
        yield folder
    forget_launches()


def forget_launches():
    launch.count_gpus.cache_clear()
    launch.resolve_launch.cache_clear()


def command(folder, line):
    before = Path.cwd()
    os.chdir(folder)
    try:
        answer = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    finally:
        os.chdir(before)
    assert answer.exit_code == 0, answer.output
    return answer


def scored(dimension, output):
    # A model that nobody trained puts next to nothing on the digits.
    untrained = f"--set scorers.{dimension}.min_digit_mass=0.0"
    return f"score pool.jsonl --dimension {dimension} --model model --output {output} {untrained}"


@pytest.fixture(scope="module")
def made(folder):
    """What each command said, by its name, after all of them."""
    lines = {
        "complexity": scored("complexity", "c.jsonl.gz"),
        "quality": scored("quality", "q.parquet"),
        "embed": "embed pool.jsonl --model model --output vectors",
        "select": f"{SELECT} --threshold {THRESHOLD} --output kept.jsonl",
        "all": f"{SELECT} --threshold {THRESHOLD} --output all.json --all",
    }
    return {name: command(folder, line) for name, line in lines.items()}


@pytest.fixture(scope="module")
def recipe(folder, made):
    """The plan of a recipe that does all of it, carried out in the same store."""
    from rich.console import Console

    scorer = {"model": str(folder / "model"), "min_digit_mass": 0.0}
    data = {
        "name": "whole",
        "pool": {"dataset": str(folder / "pool.jsonl")},
        "scorers": {"complexity": scorer, "quality": scorer},
        "embedding": {"model": str(folder / "model"), "center": True},
        "select": {"method": "deita", "budget": BUDGET, "threshold": THRESHOLD},
    }
    (folder / "whole.yaml").write_text(json.dumps(data))
    plan = make_plan(folder / "whole.yaml", [], folder / "runs")
    shared = [node.label for node in plan.nodes if plan.store.has(node.id)]
    build_stages(plan, Console(file=(folder / "whole.log").open("w")))
    return plan, shared


def test_a_recipe_finds_what_the_commands_made(recipe):
    assert recipe[1] == ["pool", "score.complexity", "score.quality", "embed"]


def test_a_selection_from_files_is_that_of_the_recipe(folder, recipe):
    plan, _ = recipe
    select = plan.cells[0].nodes["select"]
    by_recipe = read(plan.store.path(select.id) / "data")
    assert read(folder / "kept.jsonl") == by_recipe
    assert [row["selection_rank"] for row in by_recipe] == list(range(len(by_recipe)))
    assert 1 < len(by_recipe) <= BUDGET
    digests = [
        plan.store.manifest(name).content_digest for name in plan.store.published() if name.startswith("select-")
    ]
    assert len(digests) == 2 and len(set(digests)) == 1


def test_scores_and_embeddings_have_the_ids_of_the_pool(folder, made):
    pool = read(folder / "pool.jsonl")
    complexity, quality, vectors = (read(folder / name) for name in ("c.jsonl.gz", "q.parquet", "vectors"))
    ids = [row["id"] for row in pool]
    assert len(ids) == NUM_ROWS and all([row["id"] for row in rows] == ids for rows in (complexity, quality, vectors))
    turns = [sum(message["role"] == "user" for message in row["messages"]) for row in pool]
    assert [len(row["complexity_scores"]) for row in complexity] == turns
    assert all(1 <= score <= 6 for row in quality for score in row["quality_scores"])
    assert {len(row["embedding"]) for row in vectors} == {32}
    assert f"score.complexity: {sum(turns)} turns scored, 0 without a score" in made["complexity"].output
    assert "of the probability is on the digits: this looks like a wrong model" in made["complexity"].output
    assert f"embed: 32 dimensions; 0 of {NUM_ROWS} rows cut at max_length" in made["embed"].output


def test_all_rows_have_their_decision(folder, made):
    rows, kept = read(folder / "all.json"), read(folder / "kept.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in read(folder / "pool.jsonl")]
    assert list(rows[0]) == [*kept[0], "not_ranked"] and {row.pop("not_ranked") for row in rows} == {None}
    ranked = sorted((row for row in rows if row["selection_rank"] is not None), key=lambda row: row["selection_rank"])
    assert ranked == kept
    blocked = [row for row in rows if row["blocked_by"] is not None]
    assert blocked and {row["blocked_by"] for row in blocked} <= {row["id"] for row in kept}
    assert "select      " in made["all"].output and "loading libraries" not in made["all"].output


def test_fewer_rows_than_the_budget_are_a_warning(folder, made):
    found = command(folder, f"{SELECT} --threshold 0.05 --output few.jsonl")
    few = read(folder / "few.jsonl")
    assert len(few) * 2 < BUDGET
    assert f"warning: {len(few)} of the budget of {BUDGET} rows were kept out of {NUM_ROWS}; " in found.stderr
    assert "Similarity to the nearest kept row by quantile: 0: " in found.stderr


def state(folder):
    return {
        path: path.stat().st_mtime_ns
        for pattern in ("*.json*", "*.parquet", "vectors/*", "runs/store/*/manifest.json")
        for path in folder.glob(pattern)
    }


def test_the_same_command_again_does_nothing(folder, made):
    before = state(folder)
    for line in (scored("complexity", "c.jsonl.gz"), "embed pool.jsonl --model model --output vectors"):
        answer = command(folder, line)
        assert "already done" in answer.output and "loading libraries" not in answer.output
    assert state(folder) == before
    # The other form of what is published is written without the model.
    command(folder, scored("complexity", "c.parquet"))
    assert read(folder / "c.parquet") == read(folder / "c.jsonl.gz")


COMPARED = f"{SELECT} --threshold {THRESHOLD} --output both.jsonl --compare random,quality,ifd"


def test_several_methods_are_compared(folder, made):
    line = f"{COMPARED} --set perplexity.model=model --set compare.max_length=200"
    answer = command(folder, line)
    found = json.loads((folder / "both.compare.json").read_text())
    kept = {"deita": {row["id"] for row in read(folder / "both.jsonl")}}
    for method in ("random", "quality"):
        extra = " --scores q.parquet" if method == "quality" else ""
        command(folder, f"select pool.jsonl --budget {BUDGET} --method {method} --output {method}.jsonl{extra}")
        kept[method] = {row["id"] for row in read(folder / f"{method}.jsonl")}
    assert list(found["selections"]) == ["deita", "random", "quality", "ifd"]
    pool = {row["id"]: sum(len(message["content"]) for message in row["messages"]) for row in read(folder / "all.json")}
    for place, (method, ids) in enumerate(kept.items()):
        rows = found["selections"][method]["composition"]
        sizes = [pool[row_id] for row_id in ids]
        assert rows["num_rows"] == len(ids) and rows["characters"]["mean"] == pytest.approx(sum(sizes) / len(sizes))
        assert rows["beyond"] == pytest.approx(sum(max(size - 200, 0) for size in sizes) / sum(sizes))
        assert found["overlap"][0][place] == pytest.approx(len(ids & kept["deita"]) / len(ids | kept["deita"]))
        assert found["selections"][method]["diversity"]["vendi_score"] > 1
    tables = (folder / "both.compare.md").read_text()
    assert "**How diverse the selections are**" in tables and "| ifd |" in tables
    assert (folder / "both.compare.png").read_bytes().startswith(b"\x89PNG")
    assert "both.compare.md, both.compare.json and both.compare.png: the comparison" in answer.output
    before = state(folder)
    again = command(folder, line)
    assert "loading libraries" not in again.output and state(folder) == before


def test_a_model_is_measured_by_what_its_tuning_would_start_from(folder, made):
    questions = [{"question_id": "q", "turns": ["Why?", "And then?"]}, {"question_id": "r", "turns": ["Who?"]}]
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in questions))
    asked = "--questions questions.jsonl --output answers.jsonl --set evaluate.answers.max_new_tokens=5"
    found = command(folder, f"evaluate --model model --heldout pool.jsonl --preferences pairs.jsonl {asked}")
    assert f"in {NUM_ROWS} rows" in found.output and "of 8 pairs" in found.output
    assert "model: 3 of 3 answers, of " in found.output and "answers.jsonl: 3 rows" in found.output
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [(row["id"], row["turn"], row["prompt"]) for row in rows] == [
        ("q", 0, "Why?"), ("q", 1, "And then?"), ("r", 0, "Who?"),
    ]  # fmt: skip
    assert all(row["answer"] is not None and row["tokens"] <= 5 for row in rows)


@pytest.mark.faults
def test_killed_while_it_scores_and_repeated_gives_the_same_bytes(folder, made):
    line = [*scored("complexity", "again.jsonl.gz").split(), "--runs", "other"]
    arguments = [sys.executable, "-m", "deita_train.cli", *line]
    process = subprocess.Popen(arguments, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(folder.glob("other/store/.work/score-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "again.jsonl.gz").exists() and not list(folder.glob("other/store/score-*"))
    assert subprocess.run(arguments, cwd=folder, capture_output=True, check=False).returncode == 0
    assert (folder / "again.jsonl.gz").read_bytes() == (folder / "c.jsonl.gz").read_bytes()

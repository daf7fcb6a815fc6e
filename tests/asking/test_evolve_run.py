"""From seeds to labelled rows: `evolve` and `rank` against a server on loopback that knows the truth, or guesses."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import pytest
from llm.fake_server import FakeServer
from tiny_recipe import no_gpus  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.validation import validate_data
from deita_train.data.quickstart import make_scorer_rows
from deita_train.errors import UserError
from deita_train.number_text import count, decimals, share
from deita_train.plan.plan import make_plan, run_record
from deita_train.report.page import write_report
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.atomic_io import read_json, write_json_atomically

pytestmark = pytest.mark.usefixtures("no_gpus")
SEEDS = 12
PROMPTS = {
    "operation": "EVOLVE <<{{ instruction }}>>",
    "rank": "RANK {% for item in items %}{{ item.number }}: <<{{ item.text }}>> {% endfor %}",
}
OPERATIONS = ["add_constraints", "deepen", "concretize", "increase_reasoning"]
TRUTH = {row["instruction"]: row["score"] for row in make_scorer_rows("complexity", 600, 5)}
HARDER = defaultdict(list)
for text, level in TRUTH.items():
    HARDER[level].append(text)


def quoted(body):
    return re.findall(r"<<(.*?)>>", body["messages"][-1]["content"], re.DOTALL)


def pick(texts, *what):
    return texts[int(hashlib.sha256(repr(what).encode()).hexdigest(), 16) % len(texts)]


def knows(body):
    """Evolves a text into one of the next level, and ranks by the levels."""
    texts = quoted(body)
    if body["messages"][-1]["content"].startswith("EVOLVE"):
        return pick(HARDER[min(TRUTH[texts[0]] + 1, 6)], texts[0])
    return json.dumps({str(number): TRUTH[text] for number, text in enumerate(texts, start=1)})


def guesses(body):
    """Evolves alike, and ranks by dice."""
    texts = quoted(body)
    if body["messages"][-1]["content"].startswith("EVOLVE"):
        return knows(body)
    return json.dumps({str(number): pick([1, 2, 3, 4, 5, 6], number, texts) for number in range(1, len(texts) + 1)})


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in OPERATIONS:
        (folder / f"{name}.jinja").write_text(PROMPTS["operation"])
    (folder / "rank.jinja").write_text(PROMPTS["rank"])
    return str(folder)


def recipe(folder, prompts, url, seeds=SEEDS, **evolution):
    rows = [text for text, level in TRUTH.items() if level <= 2][:seeds]
    lines = (json.dumps({"id": f"s{n}", "instruction": text, "output": "ok"}) for n, text in enumerate(rows))
    (folder / "seeds.jsonl").write_text("\n".join(lines))
    data = {
        "name": "evolved",
        "llm": {"judge": {"base_url": url, "model": "truth", "price": {"input": 1.0, "output": 2.0}}},
        "evolve": {
            "seeds": {"dataset": str(folder / "seeds.jsonl")},
            "llm": "judge",
            "complexity": {"evolutions": 3, "prompts": prompts, **evolution},
            "heldout_share": 0.25,
        },
    }
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


def reported(folder, path):
    """The report in Markdown, of a run whose stages are published."""
    made = make_plan(path, (), folder / "runs")
    made.run_dir.mkdir(parents=True, exist_ok=True)
    (made.run_dir / "recipe.resolved.yaml").write_text("name: evolved\n")
    run_record(made).write(made.run_dir)
    return write_report(made.run_dir, folder / "runs" / "store").with_suffix(".md").read_text()


def told(kind, artefact):
    return STAGE_KINDS[kind].describe(read_json(artefact / "metrics.json"))


def carried_out(folder, path):
    made = make_plan(path, (), folder / "runs")
    assert validate_data(made).problems == []
    for node in made.nodes:
        run_stage(path, [], folder / "runs", node.id)
    return {node.label: made.store.path(node.id) for node in made.nodes}


def test_a_judge_that_knows_gives_labels_that_are_true(tmp_path, prompts):
    with FakeServer(knows) as server:
        path = recipe(tmp_path, prompts, server.url, orders=2)
        made = carried_out(tmp_path, path)
        asked = len(server.requests)
    chains = read_json(made["evolve.complexity"] / "metrics.json")
    ranked = read_json(made["rank.complexity"] / "metrics.json")
    assert (chains["seeds"], chains["evolutions"]) == (SEEDS, 3 * SEEDS)
    assert chains["kept"] + sum(chains["drops"].values()) == 3 * SEEDS
    rows = datasets.load_from_disk(str(made["rank.complexity"] / "data"))
    assert len(rows) > SEEDS and all(int(row["target"]) == TRUTH[row["instruction"]] for row in rows)
    assert {row["split"] for row in rows} == {"train", "heldout"}
    by_seed = defaultdict(set)
    for row in rows:
        by_seed[row["seed_id"]].add(row["split"])
        assert row["id"] == f"{row['seed_id']}/{row['step']}" and len(row["orders"]) == len(row["answers"]) == 2
    assert all(len(splits) == 1 for splits in by_seed.values())
    assert [warning["name"] for warning in ranked["warnings"]] == []
    assert asked == chains["spending"]["calls"] + ranked["spending"]["calls"]
    assert chains["spending"]["cost"] > 0 and len(ranked["examples"]) == 3
    assert told("evolve", made["evolve.complexity"]).startswith(
        f"{chains['kept']} of 36 evolved texts of 12 seeds kept"
    )
    labels = f"{len(rows)} labelled rows of {ranked['seeds_ranked']} of 12 seeds"
    assert told("rank", made["rank.complexity"]).startswith(labels)
    check_report(reported(tmp_path, path), rows, chains, ranked)


def check_report(report, rows, chains, ranked):
    """The figures of the section, counted again from the rows."""
    section = report[report.index("## Labels by a chat model") : report.index("## Time")]
    heldout = sum(row["split"] == "heldout" for row in rows)
    usable = 2 * ranked["seeds_ranked"]
    assert (
        f"| complexity | 12 | {ranked['seeds_ranked']} | 36 | {chains['kept']} | {usable} of {usable} | {len(rows)} | "
        f"{len(rows) - heldout} | {heldout} |"
    ) in section
    for level in range(1, 7):
        number = sum(row["target"] == str(level) for row in rows)
        assert f"| {number} ({share(number / len(rows))}) |" in section
    for step in range(4):
        scores = [row["mean_score"] for row in rows if row["step"] == step]
        mean = decimals(sum(scores) / len(scores), 2)
        assert f"| complexity | {step} | {len(scores)} | {mean} |" in section
    # Who knows the levels never says that a harder text is an easier one, and says the same in each order.
    assert "| 100.0% |" in section and "| 1.00 | 0.50 |" in section and "Warning" not in section
    calls, cost = ranked["spending"]["calls"], ranked["spending"]["cost"]
    assert f"| rank.complexity | {count(calls)} | {count(calls)} | 0 |" in section and f"| {cost:.4f} |" in section
    example = ranked["examples"][0]
    assert f"| {example['seed_id']} | 0 | seed |" in section and example["versions"][0]["text"] in section


def test_what_was_answered_is_never_asked_again(tmp_path, prompts):
    with FakeServer(knows) as server:
        path = recipe(tmp_path, prompts, server.url)
        carried_out(tmp_path, path)
        asked = len(server.requests)
        assert asked == len({json.dumps(body, sort_keys=True) for body in server.requests})
        # A later section with other settings, and an endpoint at another place with the same model.
        recipe(tmp_path, prompts, server.url, ask_again=5)
        made = carried_out(tmp_path, path)
        assert len(server.requests) == asked
    spending = read_json(made["rank.complexity"] / "metrics.json")["spending"]
    assert spending["calls"] == 0 and spending["answered_from_store"] > 0


def test_a_judge_that_guesses_is_warned_of(tmp_path, prompts):
    with FakeServer(guesses) as server:
        made = carried_out(tmp_path, recipe(tmp_path, prompts, server.url, seeds=120))
    ranked = read_json(made["rank.complexity"] / "metrics.json")
    assert "judge_is_guessing" in [warning["name"] for warning in ranked["warnings"]]
    assert "; warnings: judge_is_guessing" in told("rank", made["rank.complexity"])


def rates_and_tags(body):
    """Rates one text 2, cannot rate another one, and rates the others 4; tags all alike."""
    (text,) = quoted(body)
    if body["messages"][-1]["content"].startswith("TAG"):
        return json.dumps(["writing", f"only {text}"])
    return {"one": "2", "two": "hard to say"}.get(text, "4")


def test_direct_scores_and_tags_say_what_came_out(tmp_path):
    for name, prompt in {"direct_score": "RATE <<{{ instruction }}>>", "tags": "TAG <<{{ instruction }}>>"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jinja").write_text(prompt)
    lines = (json.dumps({"id": text, "instruction": text, "output": "ok"}) for text in ("one", "two", "three", "four"))
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    with FakeServer(rates_and_tags) as server:
        data = {
            "name": "rated",
            "llm": {"judge": {"base_url": server.url, "model": "truth"}},
            "pool": {"dataset": str(tmp_path / "pool.jsonl")},
            "direct_score": {"llm": "judge", "dimension": "complexity", "prompts": str(tmp_path / "direct_score")},
            "instag": {"llm": "judge", "prompts": str(tmp_path / "tags")},
        }
        write_json_atomically(tmp_path / "recipe.yaml", data)
        made = carried_out(tmp_path, tmp_path / "recipe.yaml")
    rated = told("direct_score", made["direct_score"])
    assert rated.startswith("3 of 4 rows (without a value: no_scores 1) rated, mean score 3.33; 6 calls, ")
    assert told("instag", made["instag"]).startswith("4 of 4 rows tagged, 1 different tag; 4 calls, ")
    report = reported(tmp_path, tmp_path / "recipe.yaml")
    assert "3 of 4 rows rated, mean 3.33; rows by score: 1: 0, 2: 1, 3: 0, 4: 2, 5: 0, 6: 0. Rows without" in report
    assert "instag: 4 of 4 rows tagged, with 1 different tag." in report


def test_where_the_model_answers_is_in_no_key_and_its_name_and_prompts_are(tmp_path, prompts):
    def keys(url="http://localhost:1/v1", **evolution):
        made = make_plan(recipe(tmp_path, prompts, url, **evolution), (), tmp_path / "runs")
        return {node.label: node.key for node in made.nodes}

    first = keys()
    assert keys(url="http://elsewhere:2/v1") == first
    longer = keys(evolutions=4)
    assert longer["evolve.complexity"] != first["evolve.complexity"] and longer["seeds"] == first["seeds"]
    again = keys(ask_again=0)
    assert again["evolve.complexity"] == first["evolve.complexity"]
    assert again["rank.complexity"] != first["rank.complexity"]
    with (Path(prompts) / "rank.jinja").open("a") as file:
        file.write(" ")
    assert keys()["rank.complexity"] != first["rank.complexity"]


def test_validate_says_what_will_be_asked_and_that_a_key_is_missing(tmp_path, prompts, monkeypatch):
    path = recipe(tmp_path, prompts, "http://localhost:1/v1", orders=2)
    checked = validate_data(make_plan(path, (), tmp_path / "runs"))
    assert checked.problems == []
    forecast = [line for line in checked.lines if "calls to" in line]
    texts = [json.loads(line)["instruction"] for line in (tmp_path / "seeds.jsonl").read_text().splitlines()]
    # A token for four characters; three steps of a seed; two rankings of four versions, each asked three times at most.
    evolved = 3 * sum(-(-len(f"EVOLVE <<{text}>>") // 4) for text in texts)
    ranked = 6 * sum(-(-(len("RANK ") + 4 * len(f"1: <<{text}>> ") - 1) // 4) for text in texts)
    # A million tokens cost 1 in prompts and 2 in answers.
    assert forecast == [
        f"evolve.complexity: 36 calls to llm.judge for 12 seeds; at most 36,864 tokens of answers and about "
        f"{evolved:,} of prompts while texts are as long as their seeds, which cost about "
        f"{(2 * 36864 + evolved) / 1e6:.4f} at most",
        f"rank.complexity: 24 calls to llm.judge for 12 seeds, 72 at most; at most 73,728 tokens of answers and about "
        f"{ranked:,} of prompts while texts are as long as their seeds, which cost about "
        f"{(2 * 73728 + ranked) / 1e6:.4f} at most",
    ]
    monkeypatch.delenv("JUDGES_KEY", raising=False)
    (problem, *_) = validate_data(make_plan(path, ("llm.judge.api_key_env=JUDGES_KEY",), tmp_path / "runs")).problems
    assert "llm.judge: the environment variable JUDGES_KEY is not set" in problem


def test_the_command_writes_the_labels(tmp_path, prompts):
    recipe(tmp_path, prompts, "http://localhost:1/v1")
    command = [
        "evolve", str(tmp_path / "seeds.jsonl"), "--dimension", "complexity", "--model", "truth", "--evolutions", "3",
        "--set", f"evolve.complexity.prompts={prompts}", "--runs", str(tmp_path / "runs"),
        "--output", str(tmp_path / "labels.jsonl"),
    ]  # fmt: skip
    with FakeServer(knows) as server:
        made = CliRunner().invoke(app, [*command, "--base-url", server.url])
        asked = len(server.requests)
        again = CliRunner().invoke(app, [*command, "--base-url", server.url, "--overwrite"])
        assert len(server.requests) == asked
    assert made.exit_code == 0, made.output
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert len(rows) > SEEDS and all(int(row["target"]) == TRUTH[row["instruction"]] for row in rows)
    assert again.exit_code == 0 and f"{len(rows):,} rows" in again.stdout


def test_it_needs_a_place_where_the_model_answers(tmp_path, prompts):
    recipe(tmp_path, prompts, "http://localhost:1/v1")
    made = CliRunner().invoke(
        app,
        ["evolve", str(tmp_path / "seeds.jsonl"), "--dimension", "complexity", "--output", str(tmp_path / "x.jsonl")],
    )
    assert isinstance(made.exception, UserError)
    assert "--base-url, --model, --local: state one of base_url: (a server), local:" in str(made.exception)


def test_a_scorer_is_trained_on_the_labels_and_measured_on_those_of_other_seeds(tmp_path, prompts):
    with FakeServer(knows) as server:
        path = recipe(tmp_path, prompts, server.url, seeds=40)
        data = read_json(path)
        trainer = {"learning_rate": 5e-3, "num_train_epochs": 1}
        data["base"] = {
            "builtin": "miniature",
            "architecture": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 600},
            "pretrain": {
                "data": {"builtin": "quickstart_pretraining", "rows": 100}, "max_length": 512,
                "global_batch_size": 16, "trainer": {"num_train_epochs": 1},
            },
        }  # fmt: skip
        train = {"data": "evolve", "model": "base", "max_length": 512, "global_batch_size": 8, "trainer": trainer}
        data["scorers"] = {"complexity": {"train": train}}
        write_json_atomically(path, data)
        made = carried_out(tmp_path, path)
    trained = read_json(made["train_scorer.complexity"] / "metrics.json")
    splits = Counter(datasets.load_from_disk(str(made["rank.complexity"] / "data"))["split"])
    assert splits["train"] > splits["heldout"] == trained["heldout"]["rows"] > 0
    steps_of_epoch = sum(step["epoch"] <= 1 for step in trained["history"])
    assert steps_of_epoch == -(-splits["train"] // 8)

"""`deita-train run` with labels of a chat model: the quickstart from seeds to a selection, judges, keys, and kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import datasets
import pytest
from llm.fake_server import FakeServer, error
from smoke_run import ROOT, command_here, run_environment, stages
from truth import Truth
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.data.quickstart import make_pool
from deita_train.errors import UserError
from deita_train.llm.answers import AnswerStore
from deita_train.store.atomic_io import read_json

KEY = os.environ["PLANTED_KEY"]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
# The quickstart, as small as it goes.
MINIATURE = (
    "base.architecture={hidden_size: 32, num_layers: 2, num_heads: 2, vocab_size: 600}",
    "base.pretrain.data.rows=100",
    "pool.rows=60",
    "scorers.complexity.train.heldout.rows=30",
    "scorers.quality.train.heldout.rows=30",
    "scorers.complexity.train.trainer.num_train_epochs=1",
    "scorers.complexity.min_digit_mass=0",  # so small, and after so few rows, they give noise
    "scorers.quality.min_digit_mass=0",
    "select.budget=10",
    "sweep=null",
)


def write_json_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_seeds(folder, rows):
    return write_json_lines(folder / "seeds.jsonl", rows)


def own_judge(url, seeds, **evolution):
    """The settings by which docs/evolve.md gives a recipe labels of a chat model."""
    how = json.dumps(evolution)
    return (
        f"llm={{judge: {{base_url: {url}, model: truth, api_key_env: PLANTED_KEY}}}}",
        f"evolve={{seeds: {{dataset: {seeds}}}, llm: judge, complexity: {how}, quality: {how}}}",
        "scorers.complexity.train.data=evolve",
        "scorers.quality.train.data=evolve",
    )


def arguments(*settings):
    return [part for setting in settings for part in ("--set", setting)]


def files_with(text, folder):
    return [str(path) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.fixture(scope="module")
def truth():
    return Truth(tasks=4)


def test_the_quickstart_goes_from_seeds_to_a_selection(tmp_path, truth):
    seeds = write_seeds(tmp_path, truth.seeds(12))
    with FakeServer(truth.knows) as server:
        settings = (*own_judge(server.url, seeds, evolutions=2), *MINIATURE)
        command = ("run", QUICKSTART, "--runs", str(tmp_path / "runs"), "--until", "select", *arguments(*settings))
        printed = command_here(*command)
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
        asked = len(server.requests)
        # Two evolutions and one ranking of 12 seeds, for two dimensions.
        assert asked == 12 * 3 * 2
        again = command_here(*command)
        inspected = {
            label: command_here("inspect", *command[1:4], "--stage", label, *arguments(*settings))
            for label in ("evolve.quality", "rank.quality", "train_scorer.quality")
        }
        assert len(server.requests) == asked
    made = stages(tmp_path / "runs", "quickstart")
    store = tmp_path / "runs" / "store"
    selected = datasets.load_from_disk(str(store / made["select"] / "data"))
    assert len(selected) == 10
    for dimension in ("complexity", "quality"):
        labels = datasets.load_from_disk(str(store / made[f"rank.{dimension}"] / "data"))
        of = truth.complexity.get if dimension == "complexity" else None
        for row in labels:
            known = of(row["instruction"]) if of else truth.quality(row["instruction"], row["response"])
            assert int(row["target"]) == known
        trained = read_json(store / made[f"train_scorer.{dimension}"] / "metrics.json")
        assert trained["heldout"]["rows"] == 30
        logs = "".join(path.read_text() for path in (store / made[f"evolve.{dimension}"] / "logs").iterdir())
        assert f"evolve.{dimension}: 24 calls to llm.judge for 12 seeds" in logs
    assert inspected["evolve.quality"].count(": kept ---") == 2
    assert "ranking 1 of 1: scores: step 0: " in inspected["rank.quality"]
    assert f"rank.quality, {made['rank.quality']}, " in inspected["train_scorer.quality"]
    for text in (printed, again, *inspected.values()):
        assert KEY not in text
    assert files_with(KEY.encode(), tmp_path) == []


@pytest.mark.faults
def test_the_shipped_recipe_goes_from_seeds_to_a_selection(tmp_path, truth):
    """On a miniature in place of the user's model, with the judge that knows in place of the user's server."""
    seeds = write_seeds(tmp_path, truth.seeds(24))
    write_json_lines(tmp_path / "pool.jsonl", make_pool(60, 3))
    base = {
        "builtin": "miniature",
        "architecture": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 600},
        "pretrain": {
            "data": {"builtin": "quickstart_pretraining", "rows": 200}, "max_length": 512, "global_batch_size": 16,
            "trainer": {"learning_rate": 5e-3, "num_train_epochs": 1},
        },
    }  # fmt: skip
    with FakeServer(truth.knows) as server:
        settings = [
            f"base={json.dumps(base)}", f"llm.own.base_url={server.url}", f"evolve.seeds.dataset={seeds}",
            f"pool.dataset={tmp_path / 'pool.jsonl'}", "embedding.model=base", "embedding.center=true",
            *(
                f"scorers.{name}.{field}"
                for name in ("complexity", "quality")
                for field in ("train.model=base", "train.max_length=512", "min_digit_mass=0")
            ),
        ]  # fmt: skip
        runs = tmp_path / "runs"
        command_here("run", str(ROOT / "recipes" / "evolve.yaml"), "--runs", str(runs), *arguments(*settings))
        # Five evolutions and a ranking of each seed, for each dimension; two chains may come to the same text.
        assert 24 * 10 < len(server.requests) == len(distinct(server)) <= 24 * 6 * 2
    made = stages(runs, "evolve")
    assert len(datasets.load_from_disk(str(runs / "store" / made["select"] / "data"))) == 18  # 30% of 60
    for name in ("complexity", "quality"):
        trained = read_json(runs / "store" / made[f"train_scorer.{name}"] / "metrics.json")
        splits = Counter(datasets.load_from_disk(str(runs / "store" / made[f"rank.{name}"] / "data"))["split"])
        assert trained["train_rows"] == splits["train"]


# The quickstart with labels of a judge, and the scorers that its own labels give 0.89 and 0.97 in docs/quickstart.md.
@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_scorers_of_a_judge_that_knows_are_good(tmp_path):
    truth = Truth(tasks=40)
    seeds = write_seeds(tmp_path, truth.seeds(400))
    runs = tmp_path / "runs"
    with FakeServer(truth.knows) as server:
        settings = own_judge(server.url, seeds, evolutions=5)
        command = ("run", QUICKSTART, "--runs", str(runs), *arguments(*settings, "sweep=null"))
        command_here(*command, "--until", "train_scorer")
    made = stages(runs, "quickstart")
    for name in ("complexity", "quality"):
        trained = read_json(runs / "store" / made[f"train_scorer.{name}"] / "metrics.json")
        assert trained["heldout"]["rows"] == 300 and trained["heldout"]["rank_correlation"] >= 0.7
        assert read_json(runs / "store" / made[f"rank.{name}"] / "metrics.json")["warnings"] == []


def labels_alone(folder, url, seeds, **evolution):
    """A recipe that ends with labels."""
    data = {
        "name": "labels",
        "llm": {"judge": {"base_url": url, "model": "truth", "api_key_env": "PLANTED_KEY"}},
        "evolve": {"seeds": {"dataset": str(seeds)}, "llm": "judge", "complexity": evolution, "heldout_share": 0.25},
    }
    (folder / "labels.yaml").write_text(json.dumps(data))
    return str(folder / "labels.yaml"), "--runs", str(folder / "runs")


def test_a_run_warns_by_name_of_a_judge_that_guesses(tmp_path, truth):
    seeds = write_seeds(tmp_path, truth.seeds(60))
    with FakeServer(truth.guesses) as server:
        command = ("run", *labels_alone(tmp_path, server.url, seeds, evolutions=3, orders=2))
        printed = command_here(*command)
    made = stages(tmp_path / "runs", "labels")["rank.complexity"]
    (log,) = (tmp_path / "runs" / "store" / made / "logs").iterdir()
    report = (tmp_path / "runs" / "labels" / "report" / "report.md").read_text().replace("\\_", "_")
    for name, words in {
        "judge_is_guessing": "from one version of a chain to the next the score does not fall in",
        "orders_do_not_agree": "rankings of the same versions in several orders agree with Kendall's W",
    }.items():
        assert re.search(rf"^warning: rank\.complexity: {name}: {words}", printed, re.MULTILINE)
        assert f"warning: rank.complexity: {name}: {words}" in log.read_text()
        assert f"Warning ({name}), complexity: {words}" in report
    # It is told of what is there, too.
    assert "warning: rank.complexity: judge_is_guessing" in command_here(*command)


@pytest.mark.parametrize(("status", "told"), [(401, "the key is wrong or missing"), (404, "no such key: [key]")])
def test_no_key_in_what_a_failed_run_leaves(tmp_path, truth, status, told):
    seeds = write_seeds(tmp_path, truth.seeds(4))
    with FakeServer(lambda body: error(status, f"no such key: {KEY} (Bearer {KEY})")) as server:
        recipe = labels_alone(tmp_path, server.url, seeds)
        results = [CliRunner().invoke(app, [command, *recipe]) for command in ("validate", "plan", "run", "inspect")]
        assert server.requests
    validated, planned, ran, inspected = results
    assert (validated.exit_code, planned.exit_code, inspected.exit_code) == (0, 0, 0), validated.output
    assert isinstance(ran.exception, UserError) and told in str(ran.exception)
    assert f"status {status}" in str(ran.exception)
    for result in results:
        assert KEY not in f"{result.output}{result.exception!r}{result.exception}"
    assert files_with(KEY.encode(), tmp_path) == []
    assert files_with(told.encode(), tmp_path / "runs")


# Answers before the kill, of some 60 in all: three steps of 12 seeds, then two rankings of each. None: all of them.
MOMENTS = (0, 1, 7, 12, 19, 30, 36, 41, 54, None)


@pytest.fixture(scope="module")
def undisturbed_labels(truth, tmp_path_factory):
    """The digests of an undisturbed run by stage, and the number of its calls, all of which are distinct."""
    folder = tmp_path_factory.mktemp("labels")
    with FakeServer(truth.knows) as server:
        command_here("run", *labels_of_kills(folder, truth, server.url))
        # Two chains may come to the same text.
        assert 54 < len(server.requests) == len(distinct(server)) <= 60
        return tables(folder), distinct(server)


def labels_of_kills(folder, truth, url):
    return labels_alone(folder, url, write_seeds(folder, truth.seeds(12)), evolutions=3, orders=2)


def distinct(server):
    return {json.dumps(body, sort_keys=True) for body in server.requests}


def tables(folder):
    """The bytes of what the run made, by stage: its table and digest, and what its metrics say but the spending."""
    made = {}
    for label, artefact in stages(folder / "runs", "labels").items():
        of = folder / "runs" / "store" / artefact
        files = {path.name: path.read_bytes() for path in sorted((of / "data").iterdir()) if path.suffix == ".arrow"}
        metrics = {name: value for name, value in read_json(of / "metrics.json").items() if name != "spending"}
        made[label] = (files, read_json(of / "manifest.json")["content_digest"], metrics)
    return made


@pytest.mark.faults
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_any_moment_asks_nothing_twice_and_gives_the_same_bytes(
    tmp_path, truth, undisturbed_labels, moment
):
    """The server looks at no further request, so that nothing is under way once the answers have reached the run."""
    expected, requests = undisturbed_labels
    moment = len(requests) if moment is None else moment
    with FakeServer(truth.knows) as server:
        recipe = labels_of_kills(tmp_path, truth, server.url)
        server.take_at_most(moment)
        run = subprocess.Popen(
            [sys.executable, "-m", "deita_train.cli", "run", *recipe],
            env=run_environment(), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            server.wait_for(lambda server: server.sent == moment, seconds=120)
            wait_until(lambda: len(AnswerStore(tmp_path / "runs" / "answers")) == moment)
            if moment == 0:  # when the first call is about to be made
                wait_until(lambda: list((tmp_path / "runs" / "store" / ".work").glob("evolve-*/logs/*")))
        finally:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        server.drop_connections()
        server.take_at_most(None)
        assert len(server.requests) == moment
        command_here("run", *recipe)
        assert len(server.requests) == len(requests) and distinct(server) == requests
    assert tables(tmp_path) == expected


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

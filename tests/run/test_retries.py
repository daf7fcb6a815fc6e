"""Faults that pass are planted in stages and parts: they are tried again, counted and told; mistakes are not."""

import errno
import io
import json
import shutil

import httpx
import pytest
from part_stages import do_part, make_read, node_of, write_recipe
from rich.console import Console
from tiny_recipe import a_manifest, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.run import retrying, runner
from deita_train.run.child.stage_process import run_stage
from deita_train.run.failures import StageFailed
from deita_train.run.runner import run_plan
from deita_train.stages.inference import embed
from deita_train.store.retry_log import read_retries

pytestmark = pytest.mark.timeout(60)
PASSING = {"rank": 0, "user_error": True, "message": "the Hub does not serve now. Then run again.", "passing": True}
BUG = {"rank": 0, "user_error": False, "message": "ValueError: no"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(retrying, "WAITS", (0.0, 0.01, 0.02))


class FailingChildren:
    """Children that publish every stage, except that `embed` first fails in the ways of the list."""

    def __init__(self, fails):
        self.fails = fails
        self.tries = 0

    def __call__(self, threads):
        return self

    def divides(self, plan, node):
        return False

    def load_libraries(self, tick):
        tick()

    def stage(self, plan, node, tick):
        work = plan.store.work_path(node.id)
        work.mkdir(parents=True, exist_ok=True)
        if node.label == "embed":
            self.tries += 1
            if self.fails:
                (work / "error.json").write_text(json.dumps(self.fails.pop(0)))
                return 1
        metrics = {"budget_met": True, "retries": len(read_retries(work))}
        plan.store.publish(a_manifest(node, drops={}, rows_out=5), metrics)
        return 0

    def report(self, run_dir, store_dir, log, tick):
        return 0


def run(folder, monkeypatch, fails):
    """A run without trainings whose embedding fails so; the children, the plan and what was shown."""
    children = FailingChildren(list(fails))
    monkeypatch.setattr(runner, "Children", children)
    data = recipe("scorers", "sft", "evaluate", "select", "base", embedding__model=str(folder / "model"))
    made, console = plan(folder, data), Console(file=io.StringIO(), width=300)
    error = None
    try:
        run_plan(made, console)
    except (UserError, StageFailed) as raised:
        error = raised
    return children, made, [" ".join(line.split()) for line in console.file.getvalue().splitlines()], error


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture
def model(tmp_path, recipe_file):
    shutil.copytree(recipe_file.parent / "model", tmp_path / "model")


@pytest.mark.usefixtures("no_gpus", "model")
def test_a_stage_is_tried_again_after_faults_that_pass(tmp_path, monkeypatch):
    children, made, said, error = run(tmp_path, monkeypatch, [PASSING, PASSING])
    assert (children.tries, error) == (3, None)
    (embed_node,) = (node for node in made.nodes if node.label == "embed")
    retries = read_retries(made.store.path(embed_node.id))
    assert [(retry.message, retry.waited_seconds) for retry in retries] == [
        (PASSING["message"], 0.0),
        (PASSING["message"], 0.01),
    ]
    told = [line for line in said if "embed" in line]
    assert [line.partition(" s ")[2] for line in told] == [
        *[f"failed; tried again in 0 s: {PASSING['message']}"] * 2,
        "5 rows",
    ]
    assert [line.split()[0] for line in told] == ["[3/4]"] * 3, "a stage counts once"


@pytest.mark.usefixtures("no_gpus", "model")
def test_after_the_last_wait_the_failure_is_told_with_the_number_of_tries(tmp_path, monkeypatch):
    children, _, _, error = run(tmp_path, monkeypatch, [PASSING] * 9)
    assert children.tries == 4
    assert str(error) == f"embed: {PASSING['message']} It was tried 4 times."


@pytest.mark.usefixtures("no_gpus", "model")
def test_a_bug_is_not_tried_again(tmp_path, monkeypatch):
    children, _, _, error = run(tmp_path, monkeypatch, [BUG])
    assert children.tries == 1 and isinstance(error, StageFailed) and "It was tried" not in str(error)


@pytest.fixture
def runs(recipe_file, tmp_path):
    make_read(recipe_file, tmp_path / "runs")
    return tmp_path / "runs"


def plant(monkeypatch, *errors):
    """Let the loading of the embedding's model raise these first; gives how often it was called."""
    load, left, calls = embed.load_pass_model, list(errors), []

    def loading(*arguments, **options):
        calls.append(arguments)
        if left:
            raise left.pop(0)
        return load(*arguments, **options)

    monkeypatch.setattr(embed, "load_pass_model", loading)
    return calls


def test_a_part_is_tried_again_and_its_artefact_counts_it(recipe_file, runs, monkeypatch, capsys):
    calls = plant(monkeypatch, httpx.ConnectError("refused"), OSError(errno.ESTALE, "Stale file handle"))
    do_part(recipe_file, runs, "embed", "1/2")
    assert len(calls) == 3
    assert capsys.readouterr().out.count("tried again in 0 s") == 2
    do_part(recipe_file, runs, "embed", "2/2")
    store, node = node_of(recipe_file, runs, "embed")
    assert store.metrics(node.id)["retries"] == 2
    assert [retry.part for retry in read_retries(store.path(node.id))] == ["1/2", "1/2"]


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), UserError("no such thing")])
def test_a_mistake_in_a_part_is_not(recipe_file, runs, monkeypatch, error):
    calls = plant(monkeypatch, error)
    with pytest.raises(type(error)):
        do_part(recipe_file, runs, "embed", "1/2")
    assert len(calls) == 1


def test_a_part_gives_up_after_the_last_wait(recipe_file, runs, monkeypatch):
    calls = plant(monkeypatch, *[httpx.ConnectError("refused")] * 9)
    with pytest.raises(UserError, match="a server is not reached"):
        do_part(recipe_file, runs, "embed", "1/2")
    assert len(calls) == 4
    store, node = node_of(recipe_file, runs, "embed")
    assert json.loads((store.work_path(node.id) / "parts" / "1-of-2" / "error.json").read_text())["passing"]


@pytest.mark.parametrize(
    ("error", "passing"), [(httpx.ConnectError("refused"), True), (ZeroDivisionError("no"), False)]
)
def test_the_process_of_a_stage_says_whether_its_fault_may_pass(recipe_file, runs, monkeypatch, error, passing):
    plant(monkeypatch, error)
    with pytest.raises(Exception):  # noqa: B017 - each of its own kind
        run_stage(recipe_file, [], runs, "embed")
    store, node = node_of(recipe_file, runs, "embed")
    assert json.loads((store.work_path(node.id) / "error.json").read_text())["passing"] is passing

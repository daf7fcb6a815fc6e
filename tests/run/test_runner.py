"""The run with children that publish at once or fail: what is made, skipped, said, kept and raised."""

import io
import json
import shutil
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console
from tiny_recipe import LABELS, a_manifest, dpo_recipe, no_gpus, plan, recipe, write  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError
from deita_train.plan.cost import costs
from deita_train.plan.cost.costs import run_cost
from deita_train.plan.cost.stages import stage_cost
from deita_train.run import runner
from deita_train.run.failures import StageFailed
from deita_train.run.runner import run_plan
from deita_train.store import locks
from deita_train.store.locks import BeingMade, hold

pytestmark = [pytest.mark.usefixtures("no_gpus"), pytest.mark.timeout(60)]
SWEEP = {"select.method": ["random", "longest_response"], "until": "sft"}
USERS = {"rank": 0, "user_error": True, "message": "the loss is nan"}
OURS = {"rank": 1, "user_error": False, "message": "ValueError: no"}
HOLD = """
import sys
from pathlib import Path
from deita_train.store.locks import hold
with hold(Path(sys.argv[1]), None, "pool"):
    print("holds", flush=True)
    sys.stdin.read()
"""


class FakeChildren:
    """Publishes a stage at once, unless `fails` gives an error, an exit code or an exception for it."""

    def __init__(self):
        self.fails = {}
        self.metrics = {"budget_met": True}
        self.report_code = 0
        self.made = []
        self.reports = 0
        self.tried = []
        self.problems = []
        self.notes = []
        self.trial_code = 0

    def __call__(self, threads):
        return self

    def divides(self, plan, node):
        return False

    def load_libraries(self, tick):
        tick()

    def trials(self, nodes, in_bfloat16, result, log, tick):
        tick()
        self.tried.append([node.label for node in nodes])
        self.in_bfloat16 = in_bfloat16
        if self.trial_code == 0:
            result.write_text(json.dumps({"problems": self.problems, "notes": self.notes}))
        else:
            log.write_text("Traceback\n" + (f"error: {self.problems[0]}\n" if self.trial_code == 2 else "Killed\n"))
        return self.trial_code

    def stage(self, plan, node, tick):
        tick()
        cell = plan.owners(node)[0].label
        self.made.append((cell, node.label))
        work = plan.store.work_path(node.id)
        work.mkdir(parents=True, exist_ok=True)
        failure = self.fails.get((cell, node.label))
        if isinstance(failure, BaseException):
            raise failure
        if isinstance(failure, int):
            return failure
        if failure is not None:
            (work / "error.json").write_text(json.dumps(failure))
            return 2 if failure["user_error"] else 1
        started = f"start {len(self.made)}"
        plan.store.publish(a_manifest(node, started=started, drops={}, rows_out=5), self.metrics)
        return 0

    def report(self, run_dir, store_dir, log, tick):
        self.reports += 1
        (run_dir / "report").mkdir(exist_ok=True)
        (run_dir / "report" / "result.json").write_text("[]")
        return self.report_code


@pytest.fixture
def children(monkeypatch):
    fake = FakeChildren()
    monkeypatch.setattr(runner, "Children", fake)
    return fake


def run(made, **options):
    """The outcome and the lines of a run."""
    console = Console(file=io.StringIO(), width=200)
    outcome = run_plan(made, console, **options)
    return outcome, lines(console)


def lines(console):
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def failures(made):
    path = made.run_dir / "failures.json"
    return json.loads(path.read_text()) if path.exists() else None


def node(made, cell, label):
    return next(one for one in made.cells if one.label == cell).nodes[label]


def test_a_selection_that_found_too_few_is_a_warning_each_time(tmp_path, children):
    children.metrics = {
        "budget_met": False, "budget": {"share": 0.5}, "budget_wanted": 30, "budget_found": 20, "rows_in": 60,
        "rows_out": 20, "rejected": 0,
    }  # fmt: skip
    made = plan(tmp_path, recipe(sweep={"select.budget": [{"share": 0.5}]}))
    told = [
        "warning: select: 20 of the budget of 30 rows were kept out of 60; there are no more that can be ranked.",
        "warning: select (budget 50%): 20 of the budget of 30 rows were kept out of 60; there are no more that can be "
        "ranked.",
    ]
    for _ in range(2):
        _, said = run(made)
        assert [line for line in said if line.startswith("warning")] == told


def test_everything_that_is_missing_is_made_once_and_reported(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    outcome, said = run(made)
    assert outcome.page == made.run_dir / "report" / "report.html" and outcome.error is None
    assert children.made == [("base run", label) for label in LABELS] + [
        (cell, label) for cell in ("random", "longest_response") for label in ("select", "sft")
    ]
    assert len(said) == len(LABELS) + 4 + 2
    assert said[-2].startswith("[18/19] sft (longest_response) ") and said[-2].endswith(" 5 rows")
    children.made.clear()
    outcome, said = run(made)
    assert (children.made, children.reports, outcome.error) == ([], 2, None)
    assert sum(line.endswith("already done") for line in said) == len(LABELS) + 4


def test_the_command_estimates_each_stage_once(tmp_path, children, monkeypatch):
    estimated = []

    def counted(store, rows, node, *more):
        estimated.append(node.label)
        return stage_cost(store, rows, node, *more)

    monkeypatch.setattr(costs, "stage_cost", counted)
    answer = CliRunner().invoke(app, ["run", str(write(tmp_path, recipe())), "--runs", str(tmp_path / "runs")])
    assert answer.exit_code == 0, answer.output
    assert sorted(estimated) == sorted(LABELS), "for its head and for what it keeps"
    assert f"{len(LABELS)} stages to run" in answer.output
    (kept,) = (tmp_path / "runs").glob("*/planned_costs.json")
    assert len(json.loads(kept.read_text())) > 3


TRAINED = ["base", "train_scorer.complexity", "train_scorer.quality", "sft"]


def test_a_training_that_would_fail_is_told_before_the_first_stage(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.problems = ["sft.trainer.optim: no such package.", "scorers.quality.train.trainer.debug: foo."]
    children.notes = ["sft: tried on a small LLaMA"]
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(UserError) as caught:
        run_plan(made, console)
    file = tmp_path / "recipe.yaml"
    assert str(caught.value).splitlines() == [f"{file}: {problem}" for problem in children.problems]
    assert children.made == [] and not list(made.store.published())
    assert any("sft: tried on a small LLaMA" in line for line in lines(console))
    assert not (made.run_dir / "stages.json").exists(), "the last run's record stays what it was"
    children.problems = []
    run(made)
    assert children.tried == [[*TRAINED, "sft", "sft"]] * 2, "a refused training is tried again"


def test_trainings_that_were_found_right_or_are_done_are_not_tried_again(tmp_path, children):
    made = plan(tmp_path, recipe())
    children.fails = {("base run", "sft"): USERS}
    with pytest.raises(UserError):
        run(made)
    children.fails = {}
    _, said = run(made)
    assert children.tried == [TRAINED]
    assert [line for line in said if "tried" in line] == []
    run(plan(tmp_path, recipe(sft__trainer={"learning_rate": 1e-4, "save_steps": 3})))
    run(plan(tmp_path, recipe(sft__trainer={"learning_rate": 1e-4, "save_steps": 5})), fresh="sft")
    assert children.tried[1:] == [["sft"], ["sft"]], "another value, or how it runs"
    run(plan(tmp_path, recipe(sft__trainer={"learning_rate": 1e-4, "save_steps": 5})), fresh="sft")
    assert len(children.tried) == 3


def test_only_the_trainings_of_a_cell_are_tried(tmp_path, children):
    run(plan(tmp_path, recipe(sweep=SWEEP)), cell="random")
    assert children.tried == [["base", "sft"]]


def test_a_judge_whose_key_is_not_set_is_told_before_the_first_stage(tmp_path, children, monkeypatch):
    """It is asked after SFT; once everything it answers is made, nothing needs its key."""
    monkeypatch.delenv("A_KEY_NOBODY_SET", raising=False)
    data = recipe("dpo", evaluate={"judged": {"questions": {"builtin": "everyday", "rows": 8}, "judge": "far"}})
    data["llm"] = {"far": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "A_KEY_NOBODY_SET"}}
    made = plan(tmp_path, data)
    with pytest.raises(UserError, match=r"^llm\.far: the environment variable A_KEY_NOBODY_SET is not set"):
        run(made)
    assert children.made == [] and not made.run_dir.exists()
    monkeypatch.setenv("A_KEY_NOBODY_SET", "sk-0123456789abcdef")
    assert run(made)[0].error is None
    monkeypatch.delenv("A_KEY_NOBODY_SET")
    assert run(made)[0].error is None


def test_work_in_bfloat16_on_a_cpu_is_timed_before_the_first_stage(tmp_path, children):
    made = plan(tmp_path, recipe(scorers__complexity__dtype="bfloat16", sft__trainer__bf16=True))
    planned = run_cost(made).stages
    run(made)
    expected = [
        (label, planned[node(made, "base run", label).key].operations, trains)
        for label, trains in (("score.complexity", False), ("sft", True))
    ]
    assert sorted(children.in_bfloat16) == expected and all(flops > 0 for _, flops, _ in expected)
    run(made)
    assert len(children.tried) == 1, "all is made, and nothing left to time"


def test_trials_that_come_to_no_end_are_a_warning(tmp_path, children):
    made = plan(tmp_path, recipe())
    children.trial_code = -9
    outcome, said = run(made)
    assert outcome.error is None and len(children.made) == len(LABELS)
    assert f"warning: the trainings could not be tried beforehand: {made.run_dir / 'trial.log'} says why" in said


def test_a_fault_of_the_machine_during_trials_ends_the_run(tmp_path, children):
    children.trial_code, children.problems = 2, ["/tmp: no space left on device"]
    with pytest.raises(UserError, match=r"^/tmp: no space left on device$"):
        run(plan(tmp_path, recipe()))
    assert children.made == []


def test_a_failed_cell_does_not_stop_the_others(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {("random", "select"): USERS}
    outcome, said = run(made)
    assert len(children.made) == len(LABELS) + 3
    assert ("longest_response", "sft") in children.made and ("random", "sft") not in children.made
    assert [line for line in said if "random" in line][1].endswith(
        "sft (random) skipped: it reads select, which failed"
    )
    select = node(made, "random", "select")
    assert failures(made) == [
        {
            "artefact": select.id,
            "label": "select",
            "cells": ["random"],
            "message": "the loss is nan",
            "user_error": True,
        }
    ]
    assert outcome.page is not None and children.reports == 1
    assert isinstance(outcome.error, UserError)
    arguments = f"{tmp_path / 'recipe.yaml'} --runs {tmp_path / 'runs'}"
    assert str(outcome.error) == (
        "1 stage failed and 1 more could not be built without it; everything else is done.\n"
        "1. select\n"
        "  error:   the loss is nan\n"
        "  cells:   random\n"
        f"  logs:    {made.store.work_path(select.id) / 'logs'}\n"
        f"  retry:   deita-train stage {arguments} --stage {select.id}\n"
        "Published artefacts are kept; the same `deita-train run` tries the failed stages again."
    )


def test_a_shared_stage_that_fails_takes_with_it_only_what_reads_it(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {("base run", "score.quality"): OURS, ("base run", "heldout_data"): 3}
    outcome, said = run(made)
    skipped = [line for line in said if "skipped" in line]
    assert [line.split("] ")[1] for line in skipped] == [
        "embed skipped: it reads score.quality, which failed",
        "select skipped: it reads score.quality, which failed",
        "sft skipped: it reads score.quality, which failed",
        "evaluate.base skipped: it reads heldout_data, which failed",
        "evaluate.sft skipped: it reads score.quality, heldout_data, which failed",
    ]
    assert {("random", "sft"), ("longest_response", "sft"), ("base run", "score.complexity")} <= set(children.made)
    assert [(entry["label"], entry["message"], entry["user_error"]) for entry in failures(made)] == [
        ("score.quality", "rank 1: ValueError: no", False),
        ("heldout_data", "its process ended with code 3", False),
    ]
    assert isinstance(outcome.error, StageFailed)
    assert str(outcome.error).startswith(
        "2 stages failed and 5 more could not be built without them; everything else is done.\n"
    )


def test_the_cells_of_a_failure_are_all_that_need_it(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {("base run", "base"): -9}
    run(made)
    (entry,) = failures(made)
    assert entry["cells"] == ["base run", "random", "longest_response"]
    assert entry["message"] == (
        "its process ended with code -9 (SIGKILL: killed by somebody, or by the system when memory was full; `dmesg` "
        "tells)"
    )
    children.fails = {("base run", "base"): -11}
    run(made)
    assert failures(made)[0]["message"] == "its process ended with code -11 (Segmentation fault)"


def test_one_failure_of_ours_among_the_users_is_ours(tmp_path, children):
    children.fails = {("random", "sft"): USERS, ("longest_response", "sft"): OURS}
    outcome, _ = run(plan(tmp_path, recipe(sweep=SWEEP)))
    assert isinstance(outcome.error, StageFailed)
    assert [line[:6] for line in str(outcome.error).splitlines() if line[0].isdigit()] == ["2 stag", "1. sft", "2. sft"]


def test_repeating_the_command_makes_what_failed_and_what_was_skipped(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {("random", "select"): USERS, ("longest_response", "sft"): OURS}
    run(made)
    children.made.clear()
    children.fails.pop(("random", "select"))
    outcome, _ = run(made)
    assert children.made == [("random", "select"), ("random", "sft"), ("longest_response", "sft")]
    assert [entry["cells"] for entry in failures(made)] == [["longest_response"]]
    children.fails.clear()
    outcome, _ = run(made)
    assert (outcome.error, failures(made)) == (None, None)


def test_a_report_that_fails_too_does_not_hide_the_failures(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails, children.report_code = {("random", "select"): USERS}, 1
    outcome, _ = run(made)
    assert outcome.page is None and isinstance(outcome.error, StageFailed)
    message = str(outcome.error).splitlines()
    assert message[1] == "1. select" and message[-2] == f"report failed: its log is {made.run_dir / 'report.log'}"


def test_a_report_alone_that_fails(tmp_path, children):
    made = plan(tmp_path, recipe())
    children.report_code = 1
    with pytest.raises(StageFailed) as caught:
        run(made)
    assert str(caught.value) == (
        f"report failed: its log is {made.run_dir / 'report.log'}\n"
        "The artefacts are complete; run the same command again to retry."
    )


@pytest.mark.parametrize(("failure", "kind"), [(USERS, UserError), (OURS, StageFailed)])
def test_a_recipe_of_one_cell_stops_at_its_first_failure(tmp_path, children, failure, kind):
    made = plan(tmp_path, recipe())
    children.fails = {("base run", "score.complexity"): failure}
    with pytest.raises(kind) as caught:
        run(made)
    assert children.made[-1] == ("base run", "score.complexity") and children.reports == 0
    assert failures(made) is None
    score = node(made, "base run", "score.complexity")
    if kind is UserError:
        assert str(caught.value) == "score.complexity: the loss is nan"
    else:
        arguments = f"{tmp_path / 'recipe.yaml'} --runs {tmp_path / 'runs'}"
        assert str(caught.value) == (
            "score.complexity failed: rank 1: ValueError: no\n"
            f"  logs:    {made.store.work_path(score.id) / 'logs'}\n"
            f"  retry:   deita-train stage {arguments} --stage {score.id}\n"
            "Published artefacts are kept; run the same command again to continue from here."
        )


def test_an_interrupt_stops_at_once(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {
        ("random", "select"): USERS,
        ("random", "sft"): None,
        ("longest_response", "select"): KeyboardInterrupt(),
    }
    with pytest.raises(KeyboardInterrupt):
        run(made)
    assert children.made[-1] == ("longest_response", "select") and children.reports == 0
    assert [entry["cells"] for entry in failures(made)] == [["random"]], "what failed before is kept"


def test_a_plain_run_beside_another_is_refused_and_that_is_no_failure(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    embed = node(made, "base run", "embed")
    with (
        hold(made.store.lock_path(embed.id), None, "embed"),
        pytest.raises(BeingMade, match=r"^embed is being made by"),
    ):
        run(made)
    assert children.made[-1] == ("base run", "score.quality")
    assert failures(made) is None


def test_one_cell_makes_its_own_artefacts_and_leaves_the_report(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    outcome, said = run(made, cell="random")
    assert children.made == [
        ("base run", "pretraining_data"),
        ("base run", "base"),
        ("base run", "pool"),
        ("random", "select"),
        ("random", "sft"),
    ]
    assert (outcome.page, outcome.error, children.reports) == (None, None, 0)
    assert said[-1] == "[7/7] report not written: 12 of the sweep's 17 artefacts are still missing"
    kept = json.loads((made.run_dir / "stages.json").read_text())
    assert [cell["label"] for cell in kept["cells"]] == ["base run", "random", "longest_response"]


def test_the_last_cell_writes_the_report(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    for cell in ("shared", "2", "1"):
        outcome, _ = run(made, cell=cell)
        assert outcome.page is None
    outcome, said = run(made, cell="0")
    assert outcome.page is not None and children.reports == 1
    assert len(children.made) == len(set(children.made)) == len(made.nodes)
    assert "all of the sweep's 17 artefacts are built" in said


def test_a_cell_that_fails_stops_and_leaves_a_record(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    children.fails = {("random", "select"): USERS, ("longest_response", "select"): OURS}
    with pytest.raises(UserError, match=r"^select: the loss is nan$"):
        run(made, cell="random")
    with pytest.raises(StageFailed):
        run(made, cell="longest_response")
    assert [entry["cells"] for entry in failures(made)] == [["random"], ["longest_response"]]
    children.fails.pop(("random", "select"))
    run(made, cell="random")
    assert [entry["cells"] for entry in failures(made)] == [["longest_response"]], "the other cell's is kept"


def test_what_cells_share_goes_on_after_a_failure(tmp_path, children):
    made = plan(tmp_path, recipe(sweep={**SWEEP, "whole_pool": True}))
    children.fails = {("base run", "base"): OURS}
    outcome, _ = run(made, cell="shared")
    assert children.made == [("base run", label) for label in ("pretraining_data", "base", "pool")]
    assert isinstance(outcome.error, StageFailed) and outcome.page is None


def test_a_failure_of_a_recipe_that_has_changed_is_forgotten(tmp_path, children):
    children.fails = {("random", "select"): USERS}
    run(plan(tmp_path, recipe(sweep=SWEEP)))
    made = plan(tmp_path, recipe(sweep={"select.method": ["longest_response"]}))
    run(made)
    assert failures(made) is None


def test_a_fresh_stage_is_one_of_the_cells_own(tmp_path, children):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    run(made)
    children.made.clear()
    run(made, cell="random", fresh="select")
    assert children.made == [("random", "select")]
    with pytest.raises(UserError) as caught:
        run(made, cell="random", fresh="embed")
    assert str(caught.value) == (
        "--fresh embed: there is no such stage; allowed: pretraining_data, base, pool, select, sft"
    )


@pytest.mark.parametrize(("fresh", "kept"), [(None, True), ("sft", False)])
def test_a_fresh_stage_that_was_never_finished_begins_anew(tmp_path, children, fresh, kept):
    """Its checkpoints may be what nobody wants to go on from."""
    made = plan(tmp_path, recipe())
    sft = made.cells[0].nodes["sft"]
    checkpoint = made.store.work_path(sft.id) / "checkpoints" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    children.fails = {(made.cells[0].label, "sft"): USERS}
    with pytest.raises(UserError):
        run(made, fresh=fresh)
    assert checkpoint.exists() == kept


def test_a_cell_waits_for_what_another_process_is_making(tmp_path, children, monkeypatch):
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.02)
    made = plan(tmp_path, recipe(sweep=SWEEP))
    pool = node(made, "base run", "pool")
    command = [sys.executable, "-c", HOLD, str(made.store.lock_path(pool.id))]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "holds\n"
        console = Console(file=io.StringIO(), width=200)
        running = threading.Thread(target=run_plan, args=(made, console), kwargs={"cell": "random"})
        running.start()
        while not any("waiting" in line for line in lines(console)):
            assert running.is_alive()
            time.sleep(0.02)
        time.sleep(0.2)
        assert children.made == [("base run", "pretraining_data"), ("base run", "base")]
        children.stage(made, pool, lambda: None)  # the other process publishes it and ends
        other.kill()
        running.join()
    finally:
        other.kill()
        other.communicate()
    said = lines(console)
    (waited,) = [line for line in said if "waiting" in line]
    assert waited.startswith(f"pool: waiting for process {other.pid} on ")
    assert "[4/7] pool meanwhile built by another run" in said
    assert children.made[2:] == [("base run", "pool"), ("random", "select"), ("random", "sft")]


def test_a_stage_made_again_is_published_only_once_it_is_replaced(tmp_path, children):
    """The older artefact under the same key does not count."""
    made = plan(tmp_path, recipe())
    run(made)
    children.fails = {("base run", "score.quality"): 0}  # ends well and publishes nothing
    with pytest.raises(StageFailed, match=r"^score\.quality failed: its process ended with code 0"):
        run(made, fresh="score")
    assert made.store.has(node(made, "base run", "score.quality").id)


def test_a_process_that_ends_badly_after_publishing_has_failed(tmp_path, children):
    made = plan(tmp_path, recipe())
    publishes = children.stage
    children.stage = lambda plan, node, tick: publishes(plan, node, tick) or (3 if node.label == "embed" else 0)
    with pytest.raises(StageFailed, match=r"^embed failed: its process ended with code 3"):
        run(made)


class ModelChildren(FakeChildren):
    """Its trainings leave a model."""

    def stage(self, plan, node, tick):
        if node.kind in ("sft", "dpo"):
            (plan.store.work_path(node.id) / "model").mkdir(parents=True, exist_ok=True)
        self.links_before = getattr(self, "links_before", {})
        self.links_before[plan.owners(node)[0].label, node.label] = links(plan)
        return super().stage(plan, node, tick)


@pytest.fixture
def trainings(monkeypatch):
    fake = ModelChildren()
    monkeypatch.setattr(runner, "Children", fake)
    return fake


def links(made):
    """Link -> artefact of every link in a run's folder."""
    found = {}
    for link in sorted(made.run_dir.rglob("*")):
        if link.is_symlink():
            assert link.resolve().is_dir(), f"{link} leads nowhere"
            found[str(link.relative_to(made.run_dir))] = link.resolve().parent.name
    return found


def test_a_run_leaves_links_to_the_models_of_each_cell(tmp_path, trainings):
    made = plan(tmp_path, dpo_recipe(sweep=SWEEP))
    outcome, _ = run(made)
    assert outcome.error is None
    base = {label: node(made, "base run", label).id for label in ("sft", "dpo")}
    cells = {f"cells/{cell}/sft": node(made, cell, "sft").id for cell in ("random", "longest_response")}
    assert links(made) == base | cells
    assert trainings.links_before["base run", "sft"] == {}
    assert trainings.links_before["base run", "dpo"] == {"sft": base["sft"]}, "made as soon as the stage ends"


def test_links_follow_the_recipe(tmp_path, trainings):
    former = plan(tmp_path, dpo_recipe(sweep=SWEEP))
    run(former)
    before = links(former)
    changed = plan(tmp_path, recipe(sft__seed=9, sweep={**SWEEP, "select.method": ["random"]}))
    trainings.fails = {("base run", "sft"): USERS}
    run(changed)
    assert trainings.links_before["base run", "sft"] == before, "those of the models before the change"
    assert links(changed) == before | {"cells/random/sft": node(changed, "random", "sft").id}
    trainings.fails = {}
    run(changed)
    assert links(changed)["sft"] == node(changed, "base run", "sft").id != before["sft"]
    shutil.rmtree(changed.store.path(before["dpo"]))
    run(changed)
    assert set(links(changed)) == {"sft", "cells/random/sft", "cells/longest_response/sft"}


def test_a_model_that_could_not_be_rebuilt_has_no_link(tmp_path, trainings):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    run(made)
    assert "sft" in links(made)
    trainings.fails = {("base run", "sft"): OURS}
    run(made, fresh="sft")
    assert trainings.links_before["base run", "sft"] == {}
    assert list(links(made)) == ["cells/longest_response/sft", "cells/random/sft"]


def test_what_stands_in_the_place_of_a_link_is_told(tmp_path, trainings):
    made = plan(tmp_path, recipe())
    (made.run_dir / "sft").mkdir(parents=True)
    _, said = run(made)
    assert [line for line in said if line.startswith("warning")] == [
        f"warning: {made.run_dir / 'sft'} stays, though it is no link of a run; move it away for a link to the model "
        "there"
    ]


def test_a_part_of_a_run_keeps_its_links_and_its_report(tmp_path, trainings):
    made = plan(tmp_path, recipe())
    run(made)
    whole, reports = (made.run_dir / "stages.json").read_bytes(), trainings.reports
    for part in (plan(tmp_path, recipe(), until="pool"), plan(tmp_path, recipe(select__seed=9), until="select")):
        outcome, said = run(part)
        assert outcome.page is None and trainings.reports == reports
        assert any("kept: it is of the whole run" in line for line in said)
        assert "sft" in links(made) and (made.run_dir / "stages.json").read_bytes() == whole
    assert run(made)[0].page is not None and trainings.reports == reports + 1


def test_a_link_stays_until_the_other_model_is_made(tmp_path, trainings):
    made = plan(tmp_path, recipe())
    run(made)
    before = links(made)["sft"]
    other = plan(tmp_path, recipe(sft__seed=5))
    run(other)
    assert trainings.links_before["base run", "sft"]["sft"] == before != links(other)["sft"]

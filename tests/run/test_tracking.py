"""What is logged, and that no failure of it reaches a stage.

A fake wandb stands in for the faults. trackio and TensorBoard are no dependencies: small fakes with the same calls
stand in for both.
"""

import ast
import json
import os
import re
import struct
import subprocess
import sys
import time
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tiny_recipe import a_manifest, no_gpus, plan, recipe, write  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import inputs
from deita_train.plan.plan import make_plan
from deita_train.run.child import tracking as module
from deita_train.run.child.stage_process import run_stage
from deita_train.run.child.tracking import Tracker, run_arguments, tracking

pytestmark = pytest.mark.usefixtures("no_gpus")
# Each fault is one of wandb's; every call is written down, so that a process may be read from outside.
FAKE = """
import json, os, time

FAULT = os.environ.get("FAKE_FAULT", "")

def record(*call):
    with open(os.environ["FAKE_CALLS"], "a") as file:
        file.write(json.dumps(call) + "\\n")

class Settings:
    def __init__(self, stop_fn, **values):
        self.values = values

class Summary:
    def update(self, values):
        record("summary", values)

class Run:
    url, dir, summary = None, "/somewhere/offline-run/files", Summary()
    def define_metric(self, name, **options):
        pass
    def log(self, values):
        if FAULT == "log raises":
            raise RuntimeError("the service is\\n gone")
        record("log", values)
    def finish(self, exit_code):
        record("finish", exit_code)
        if FAULT == "finish hangs":
            time.sleep(600)

def init(settings, **arguments):
    from wandb.errors import UsageError
    record("init", arguments, settings.values)
    if FAULT == "init hangs":
        time.sleep(600)
    if FAULT == "init raises":
        raise OSError(28, "No space left on device")
    if FAULT == "dies":
        os._exit(9)
    if FAULT == "no key" and arguments["mode"] == "online":
        raise UsageError("No API key configured.")
    return Run()

def teardown():
    record("teardown")
"""


@pytest.fixture(autouse=True)
def no_settings_of_the_users(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts the fake in wandb's place for the logging process; returns its calls so far."""
    folder = tmp_path / "fake" / "wandb"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(FAKE)
    (folder / "errors.py").write_text("class UsageError(Exception): pass\nclass AuthenticationError(Exception): pass\n")
    calls = tmp_path / "calls.jsonl"
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def with_wandb(**section):
    return recipe(wandb=section)


def track(made, label="sft", rank=0):
    """A stage of two steps; returns the seconds that its end took."""
    with tracking(made, made.cells[0].nodes[label], rank) as tracker:
        tracker.log({"loss": 2.5}, 1)
        tracker.log({"loss": 2.25}, 2)
        tracker.summarize({"accuracy": 0.5, "heldout": {"rows": 3, "worst": None}, "history": [1, 2], "device": "cpu"})
        began = time.monotonic()
    return time.monotonic() - began


def test_a_stage_becomes_a_run_of_its_recipes_group(tmp_path, fake):
    made = plan(tmp_path, with_wandb(project="p", entity="team", mode="offline"))
    node = made.cells[0].nodes["sft"]
    track(made)
    (_, arguments, settings), *rest = fake()
    identity = arguments.pop("id")
    config = arguments.pop("config")
    assert re.fullmatch(rf"{node.id}-[0-9a-f]{{6}}", identity)
    assert arguments == {
        "mode": "offline",
        "project": "p",
        "entity": "team",
        "group": "tiny",
        "name": "sft",
        "job_type": "sft",
        "dir": str(tmp_path / "runs" / "tiny"),
        "resume": "allow",
    }
    assert settings["console"] == "off" and settings["silent"] and settings["disable_git"] and settings["disable_code"]
    assert 0 < settings["init_timeout"] <= 15 and 0 < settings["finish_timeout"] < module.FINISH_SECONDS
    assert (config["artefact"], config["kind"], config["cell"]) == (node.id, "sft", {})
    assert config["stage"] == node.identity
    assert config["recipe"]["select"]["threshold"] == 0.9, "defaults are filled in"
    assert rest == [
        ["log", {"step": 1, "loss": 2.5}],
        ["log", {"step": 2, "loss": 2.25}],
        ["summary", {"final/accuracy": 0.5, "final/heldout/rows": 3, "final/device": "cpu"}],
        ["finish", 0],
        ["teardown"],
    ]


def test_a_stage_of_one_cell_is_named_by_it_and_has_its_recipe(tmp_path):
    made = plan(tmp_path, recipe(wandb={}, sweep={"select.method": ["random"], "until": "sft"}))
    base, cell = made.cells
    section = made.loaded.recipe.wandb
    arguments = run_arguments(made, cell.nodes["sft"], section)
    assert arguments["group"] == "tiny"
    assert arguments["name"] == f"sft ({cell.label})"
    assert arguments["config"]["cell"] == {"select.method": "random"}
    assert arguments["config"]["recipe"]["select"]["method"] == "random"
    shared = run_arguments(made, cell.nodes["base"], section)
    assert shared["name"] == "base" and shared["config"]["recipe"]["select"]["method"] == "deita"
    assert base.nodes["base"].id == cell.nodes["base"].id


def test_a_training_tells_what_it_was_selected_from(tmp_path):
    made = plan(tmp_path, with_wandb())
    nodes = made.cells[0].nodes
    for label in ("pool", "embed", "select"):
        folder = made.store.path(nodes[label].id)
        folder.mkdir(parents=True)
        manifest = a_manifest(nodes[label], label=label, rows_out=len(label), drops={"near": 2})
        (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    told = run_arguments(made, nodes["sft"], made.loaded.recipe.wandb)["config"]["made_from"]
    assert told == {
        label: {
            "artefact": nodes[label].id,
            "rows": len(label),
            "dropped": {"near": 2},
            "content_digest": nodes[label].id,
        }
        for label in ("pool", "embed", "select")
    }


def test_a_resumed_stage_continues_its_run_and_one_made_anew_does_not(tmp_path):
    made = plan(tmp_path, with_wandb())
    node = made.cells[0].nodes["sft"]
    first, again = (run_arguments(made, node, made.loaded.recipe.wandb)["id"] for _ in range(2))
    assert first == again
    (made.store.work_path(node.id) / "wandb_run").unlink()
    assert run_arguments(made, node, made.loaded.recipe.wandb)["id"] != first


def test_a_long_name_is_cut_to_what_wandb_takes(tmp_path):
    made = plan(tmp_path, recipe(wandb={}, sweep={"select.method": ["random"]}))
    cells = (made.cells[0], replace(made.cells[1], label="x" * 200))
    loaded = replace(made.loaded, cells=(made.loaded.cells[0], replace(made.loaded.cells[1], label="x" * 200)))
    node = made.cells[1].nodes["sft"]
    arguments = run_arguments(replace(made, cells=cells, loaded=loaded), node, made.loaded.recipe.wandb)
    assert arguments["name"] == "sft (" + "x" * 123


def test_the_section_changes_no_artefact(tmp_path):
    without = plan(tmp_path, recipe())
    logged = plan(tmp_path, with_wandb(project="p", entity="e", mode="offline"))
    assert [node.id for node in logged.nodes] == [node.id for node in without.nodes]
    for node, other in zip(logged.nodes, without.nodes, strict=True):
        assert (node.identity, node.runtime) == (other.identity, other.runtime)


@pytest.mark.parametrize(
    ("section", "label", "rank", "environment"),
    [
        (None, "sft", 0, None),
        ({}, "pool", 0, None),
        ({}, "sft", 1, None),
        ({}, "sft", 0, "disabled"),
    ],
)
def test_nothing_is_started_for(tmp_path, fake, monkeypatch, section, label, rank, environment):
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    made = plan(tmp_path, recipe(wandb=section))
    with tracking(made, made.cells[0].nodes[label], rank) as tracker:
        assert type(tracker) is Tracker
        tracker.log({"loss": 1.0}, 1)
        tracker.summarize({"loss": 1.0})
    assert fake() == []
    assert not made.run_dir.exists()


@pytest.mark.parametrize(
    ("stated", "environment", "mode"),
    [
        ("online", "", "online"),
        ("online", "offline", "offline"),
        ("online", "dryrun", "offline"),
        ("offline", "online", "offline"),
    ],
)
def test_the_environment_may_ask_for_less(tmp_path, monkeypatch, stated, environment, mode):
    monkeypatch.setenv("WANDB_MODE", environment)
    made = plan(tmp_path, with_wandb(mode=stated))
    assert run_arguments(made, made.cells[0].nodes["sft"], made.loaded.recipe.wandb)["mode"] == mode


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("init raises", "wandb: logging is off for this stage: OSError: [Errno 28] No space left on device"),
        ("log raises", "wandb: logging is off for this stage: RuntimeError: the service is gone"),
        ("init hangs", "wandb: stopped, because it did not finish within 0.5 seconds; its last data may be missing."),
        ("finish hangs", "wandb: stopped, because it did not finish within 0.5 seconds; its last data may be missing."),
        ("dies", "wandb: its process ended with code 9; nothing is logged from then on."),
    ],
)
def test_a_fault_is_reported_once_and_the_stage_goes_on(tmp_path, fake, monkeypatch, capfd, fault, message):
    monkeypatch.setenv("FAKE_FAULT", fault)
    # A hang is waited for in vain, and the others may take as long as a busy machine needs.
    monkeypatch.setattr(module, "FINISH_SECONDS", 0.5 if fault.endswith("hangs") else 20.0)
    assert track(plan(tmp_path, with_wandb(mode="offline"))) < 10
    told = [line for line in capfd.readouterr().err.splitlines() if "logged offline;" not in line]
    assert told == [message]
    assert not left_over()


def test_without_a_key_a_stage_is_logged_offline_and_reported_what_to_do(tmp_path, fake, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_FAULT", "no key")
    track(plan(tmp_path, with_wandb(mode="online")))
    modes = [call[1]["mode"] for call in fake() if call[0] == "init"]
    assert modes == ["online", "offline"]
    assert ["finish", 0] in fake()
    told = capfd.readouterr().err
    assert "No API key configured. This stage is logged offline instead" in told and "`wandb login`" in told
    assert "`wandb sync /somewhere/offline-run` uploads it" in told


def test_a_process_that_cannot_be_started_is_reported_too(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    track(plan(tmp_path, with_wandb()))
    assert re.fullmatch(
        r"wandb: logging is off for this stage: FileNotFoundError: .*no python'\n", capfd.readouterr().err
    )


def test_numbers_that_nobody_takes_do_not_hold_the_stage_up(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "init hangs")
    monkeypatch.setattr(module, "FINISH_SECONDS", 0.2)
    made = plan(tmp_path, with_wandb())
    with tracking(made, made.cells[0].nodes["sft"], 0) as tracker:
        began = time.monotonic()
        for step in range(20000):  # more than a pipe holds
            tracker.log({"loss": float(step)}, step)
        assert time.monotonic() - began < 5


def test_a_failed_stage_is_a_failed_run(tmp_path, fake):
    made = plan(tmp_path, with_wandb())
    with pytest.raises(UserError, match="diverged"), tracking(made, made.cells[0].nodes["sft"], 0):
        raise UserError("the loss diverged")
    assert ["finish", 1] in fake()


def left_over():
    """Processes that a tracker started and that are still there."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "deita_train.run.child.tracking_process" in process.cmdline()]


def test_a_killed_stage_leaves_no_process_of_wandbs(tmp_path):
    program = (
        "import time; from deita_train.run.child.tracking import ProcessTracker;"
        f"ProcessTracker('wandb', {dict(mode='offline', project='p', id='x', dir=str(tmp_path), config={})!r});"
        "time.sleep(600)"
    )
    log = tmp_path / "log"
    with log.open("w") as output:
        stage = subprocess.Popen([sys.executable, "-c", program], stderr=output)
    wait_for(lambda: "logged offline" in log.read_text())
    wait_for(lambda: len(psutil.Process(stage.pid).children(recursive=True)) == 3)
    family = psutil.Process(stage.pid).children(recursive=True)
    assert {Path(process.exe()).name for process in family} >= {"wandb-core", "wandb-symon"}
    stage.kill()
    stage.wait()
    _, left = psutil.wait_procs(family, timeout=2)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def records(folder):
    """The records of an offline run: a log in blocks of 32 KiB, whose records have a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, part = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_an_offline_training_leaves_its_run_below_the_runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    data = recipe(wandb={"project": "p"}, base__pretrain__trainer={"learning_rate": 0.001, "max_steps": 3})
    path, runs = write(tmp_path, data), tmp_path / "runs"
    made = plan(tmp_path, data)
    nodes = made.cells[0].nodes
    for label in ("pretraining_data", "base"):
        run_stage(path, (), runs, nodes[label].id)
    (folder,) = (runs / "tiny" / "wandb").glob("offline-run-*")
    assert folder.name.split("-", 3)[3].startswith(f"{nodes['base'].id}-")
    assert not (tmp_path / "wandb").exists() and not list(runs.glob("store/**/*wandb*"))
    found = list(records(folder))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.run_group, run.display_name, run.project, run.job_type) == ("tiny", "base", "p", "base")
    config = values(run.config.update)
    assert config["artefact"] == nodes["base"].id and config["recipe"]["name"] == "tiny"
    metrics = made.store.metrics(nodes["base"].id)
    history = [values(record.history.item) for record in found if record.HasField("history")]
    for name in ("step", "epoch", "loss", "learning_rate"):
        assert [entry[name] for entry in history] == [entry[name] for entry in metrics["history"]]
    assert [entry["step"] for entry in history] == [1, 2, 3]
    summary = {}
    for record in found:
        summary |= values(record.summary.update)
    assert summary["final/parameters"] == metrics["parameters"] and summary["final/rows_out"] == 50
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


# What deita_train calls of both, by their documentation.
FAKE_TRACKIO = """
import json, os

def record(*call):
    with open(os.environ["FAKE_CALLS"], "a") as file:
        file.write(json.dumps(("trackio", *call)) + "\\n")

class Run:
    def log(self, metrics, step=None):
        record("log", metrics, step)
    def finish(self):
        record("finish")

def init(project, name=None, group=None, config=None, resume="never", embed=True):
    record("init", project, name, group, config, resume, embed)
    if os.environ.get("FAKE_FAULT") == "trackio":
        raise RuntimeError("no space")
    return Run()
"""
FAKE_TENSORBOARD = """
import json, os, sys, types

def record(*call):
    with open(os.environ["FAKE_CALLS"], "a") as file:
        file.write(json.dumps(("tensorboard", *call)) + "\\n")

class SummaryWriter:
    def __init__(self, log_dir=None, purge_step=None):
        record("init", log_dir, purge_step)
    def add_scalar(self, tag, scalar_value, global_step=None):
        record("scalar", tag, scalar_value, global_step)
    def add_text(self, tag, text_string, global_step=None):
        record("text", tag, text_string, global_step)
    def flush(self):
        pass
    def close(self):
        record("close")

if "tracking_process" in " ".join(sys.orig_argv):
    for name in ("torch", "torch.utils", "torch.utils.tensorboard"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torch.utils.tensorboard"].SummaryWriter = SummaryWriter
"""


@pytest.fixture
def fakes(fake, tmp_path, monkeypatch):
    """Fakes of wandb, trackio and torch.utils.tensorboard for the logging processes; returns the calls of one."""
    folder = tmp_path / "fake"
    (folder / "trackio.py").write_text(FAKE_TRACKIO)
    (folder / "sitecustomize.py").write_text(FAKE_TENSORBOARD)  # which Python imports when it starts
    monkeypatch.setattr(inputs, "find_spec", lambda name: SimpleNamespace(origin=f"{name}.py"))
    return lambda service: [call[1:] for call in fake() if call[0] == service]


def test_a_stage_is_logged_to_tensorboard(tmp_path, fakes, capfd):
    made = plan(tmp_path, recipe(report_to=["tensorboard"]))
    node = made.cells[0].nodes["sft"]
    track(made)
    (_, folder, purge_step), (_, tag, text, at), *rest = fakes("tensorboard")
    top = made.run_dir.absolute() / "tensorboard"
    assert folder == str(top / f"sft-{node.key[:12]}") and purge_step == 1
    assert (tag, at) == ("config", 1) and json.loads(text.removeprefix("```json").removesuffix("```"))["kind"] == "sft"
    assert rest == [
        ["scalar", "loss", 2.5, 1],
        ["scalar", "loss", 2.25, 2],
        ["scalar", "final/accuracy", 0.5, 2],
        ["scalar", "final/heldout/rows", 3, 2],
        ["text", "final/device", "cpu", 2],
        ["close"],
    ]
    assert f"tensorboard: logged to {folder}; `tensorboard --logdir {top}` shows it." in capfd.readouterr().err
    assert fakes("init") == [], "nothing of wandb's"


def test_the_process_that_publishes_adds_to_what_the_training_logged(tmp_path, fakes):
    made = plan(tmp_path, recipe(report_to=["tensorboard", "trackio"]))
    with tracking(made, made.cells[0].nodes["sft"], 0) as tracker:
        tracker.summarize({"steps": 7, "loss": 2.0})
    (_, _, purge_step), _, *rest = fakes("tensorboard")
    assert purge_step is None, "the training's curves stay"
    assert rest == [["scalar", "final/steps", 7, 7], ["scalar", "final/loss", 2.0, 7], ["close"]]
    assert fakes("trackio")[1:] == [["log", {"final/steps": 7, "final/loss": 2.0}, 7], ["finish"]]


def test_a_stage_is_logged_to_trackio_under_the_recipes_name(tmp_path, fakes, capfd):
    made = plan(tmp_path, recipe(report_to=["trackio"]))
    node = made.cells[0].nodes["sft"]
    for _ in range(2):
        track(made)
    first, *rest = fakes("trackio")
    _, project, name, group, config, resume, embed = first
    assert (project, group, resume, embed) == ("tiny", "base run", "allow", False)
    assert re.fullmatch(rf"sft {node.key[:12]}-[0-9a-f]{{6}}", name)
    assert (config["artefact"], config["stage"]) == (node.id, node.identity)
    calls = [["log", {"loss": 2.5}, 1], ["log", {"loss": 2.25}, 2]]
    calls += [["log", {"final/accuracy": 0.5, "final/heldout/rows": 3, "final/device": "cpu"}, 2], ["finish"]]
    assert rest == [*calls, first, *calls], "a resumed stage goes on under the same name"
    assert f"trackio: logged as '{name}'; `trackio show --project tiny` shows it." in capfd.readouterr().err


def test_a_cell_has_a_folder_in_tensorboard_and_a_group_in_trackio(tmp_path, fakes):
    made = plan(tmp_path, recipe(report_to=["tensorboard"], sweep={"select.method": ["random"], "until": "sft"}))
    node = made.cells[1].nodes["sft"]
    folder = module.tensorboard_arguments(made, node)["folder"]
    assert folder == str(made.run_dir.absolute() / "tensorboard" / "random" / f"sft-{node.key[:12]}")
    arguments = module.trackio_arguments(made, node)
    assert arguments["group"] == "random" and arguments["name"].startswith(f"sft (random) {node.key[:12]}-")
    assert arguments["config"]["cell"] == {"select.method": "random"}


def logged_points(fakes):
    """What each service was told: names with steps and values of the history, and the final metrics by name."""
    history, final = {name: [] for name in ("wandb", "tensorboard", "trackio")}, {}
    for (values,) in fakes("log"):
        history["wandb"] += [(name, values["step"], value) for name, value in values.items() if name != "step"]
    ((final["wandb"],),) = fakes("summary")
    points = {
        "tensorboard": [call[1:] for call in fakes("tensorboard") if call[0] in ("scalar", "text")],
        "trackio": [
            (name, value, step)
            for kind, values, step in (call for call in fakes("trackio") if call[0] == "log")
            for name, value in values.items()
        ],
    }
    for service, found in points.items():
        found = [point for point in found if point[0] != "config"]
        history[service] = [(name, step, value) for name, value, step in found if not name.startswith("final/")]
        final[service] = {name: value for name, value, _ in found if name.startswith("final/")}
    return history, final


# What the stages leave in their metrics, in small: of a selection, of an evaluation and of a training.
SELECTION = {
    "method": "deita", "budget_met": True, "rows_out": 3, "score_mean": {"selected": 2.5, "pool": 1.25},
    "strata": {"a": {"rows": 2}}, "threshold": None, "examples": ["x"],
}  # fmt: skip
SELECTED = {
    "final/method": "deita", "final/budget_met": 1, "final/rows_out": 3, "final/score_mean/selected": 2.5,
    "final/score_mean/pool": 1.25, "final/strata/a/rows": 2,
}  # fmt: skip
EVALUATION = {"heldout": {"loss_per_token": 2.25}, "answers": {"r1": {"answer": "No.", "is_ended": False}}}
EVALUATED = {"final/heldout/loss_per_token": 2.25, "final/answers/r1/answer": "No.", "final/answers/r1/is_ended": 0}
TRAINING = {"steps": 2, "loss": 2.125, "history": [{"step": 1}]}


@pytest.mark.parametrize(
    ("label", "steps", "metrics", "told"),
    [
        ("select", [], SELECTION, SELECTED),
        ("evaluate.sft", [], EVALUATION, EVALUATED),
        ("sft", [2.5, 2.25], TRAINING, {"final/steps": 2, "final/loss": 2.125}),
    ],
)
def test_every_service_is_told_the_same_names_steps_and_values(tmp_path, fakes, label, steps, metrics, told):
    made = plan(tmp_path, recipe(wandb={"mode": "offline"}, report_to=["trackio", "tensorboard"]))
    with tracking(made, made.cells[0].nodes[label], 0) as tracker:
        for step, loss in enumerate(steps, start=1):
            tracker.log({"loss": loss, "reward/accuracy": loss / 4}, step)
        tracker.summarize(metrics)
    history, final = logged_points(fakes)
    points = [(name, step, value) for step, loss in enumerate(steps, start=1) for name, value in
              (("loss", loss), ("reward/accuracy", loss / 4))]  # fmt: skip
    assert history == dict.fromkeys(history, points)
    assert final == dict.fromkeys(final, told)


def test_all_services_at_once_and_a_fault_of_one_leaves_the_others(tmp_path, fakes, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_FAULT", "trackio")
    track(plan(tmp_path, recipe(wandb={"mode": "offline"}, report_to=["trackio", "tensorboard"])))
    assert fakes("finish") == [[0]] and fakes("tensorboard")[-1] == ["close"]
    assert [call[0] for call in fakes("trackio")] == ["init"]
    told = capfd.readouterr().err
    assert "trackio: logging is off for this stage: RuntimeError: no space\n" in told
    assert "wandb: logged offline" in told and not left_over()


@pytest.mark.parametrize(
    ("report_to", "label", "rank"), [(["none"], "sft", 0), (["trackio"], "pool", 0), (["trackio"], "sft", 1)]
)
def test_no_service_is_started_for(tmp_path, fakes, report_to, label, rank):
    made = plan(tmp_path, recipe(report_to=report_to))
    with tracking(made, made.cells[0].nodes[label], rank) as tracker:
        assert type(tracker) is Tracker
    assert fakes("trackio") == []


def test_the_fakes_take_what_the_real_ones_take():
    """torch's writer is there even without the package that it writes for; it cannot be imported, but read."""
    source = Path(find_spec("torch").origin).parent / "utils" / "tensorboard" / "writer.py"
    classes = {node.name: node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)}
    takes = {
        method.name: {argument.arg for argument in method.args.args}
        for method in classes["SummaryWriter"].body
        if isinstance(method, ast.FunctionDef)
    }
    assert {"log_dir", "purge_step"} <= takes["__init__"]
    assert {"tag", "scalar_value", "global_step"} <= takes["add_scalar"]
    assert {"tag", "text_string", "global_step"} <= takes["add_text"] and {"flush", "close"} <= set(takes)


def test_reporting_changes_no_artefact(tmp_path, fakes):
    without = plan(tmp_path, recipe())
    logged = plan(tmp_path, recipe(report_to=["trackio", "tensorboard"]))
    assert [(node.id, node.runtime) for node in logged.nodes] == [(node.id, node.runtime) for node in without.nodes]


@pytest.mark.parametrize("service", ["trackio", "tensorboard"])
def test_what_is_not_installed_is_refused_when_the_run_is_planned(tmp_path, monkeypatch, service):
    data = recipe(report_to=[service])
    for spec in (None, SimpleNamespace(origin=None)):  # as of a folder of that name
        monkeypatch.setattr(inputs, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(UserError) as caught:
            plan(tmp_path, data)
        assert re.sub(r"(recipe\.yaml):\d+:", r"\1:", str(caught.value)) == (
            f"{tmp_path / 'recipe.yaml'}: report_to: {service} is not installed: pip install 'deita-train[{service}]'."
        )
    assert make_plan(tmp_path / "recipe.yaml", (), tmp_path / "runs", planned_gpus=1).nodes, "for another machine"
    assert plan(tmp_path, recipe(report_to=["none"])).nodes

"""A run whose passes are tasks of a cluster that a module in this process stands in for; real Ray is in
tests/distributed/test_ray.py."""

import json
import signal
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import pytest
from part_stages import digest, write_recipe
from rich.console import Console
from smoke_run import run_environment
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.run import ray_parts, retrying
from deita_train.run.child.stage_process import run_stage
from deita_train.run.failures import StageFailed
from deita_train.run.runner import Cluster, run_plan

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("processes")]


@dataclass(eq=False)
class Reference:
    """A task that was handed over."""

    arguments: tuple


class FakeRay(ModuleType):
    """Carries out a task where `get` asks for it, the last started first; a task named in `fails` ends with its code
    without doing anything, once for each code, and None stands for a worker that died too often."""

    class RayError(Exception):
        """Its own errors."""

    def __init__(self):
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=self.RayError)
        self.addresses, self.needs, self.done, self.cancelled, self.fails = [], [], [], [], {}

    def init(self, address, **settings):
        self.addresses.append(address)
        if address == "nowhere:1":
            raise ConnectionError("no such cluster\nat all")

    def cluster_resources(self):
        return {"CPU": 3.0, "memory": 1e9}

    def remote(self, **needs):
        def start(*arguments):
            self.needs.append(needs)
            return Reference(arguments)

        return lambda function: SimpleNamespace(remote=start)

    def wait(self, references, num_returns, timeout):
        return [references[-1]], references[:-1]

    def get(self, reference):
        arguments, variables, folder, log = reference.arguments
        assert variables == {"OMP_NUM_THREADS": "1"} and Path(folder) == Path.cwd()
        part = arguments[arguments.index("--part") + 1]
        if self.fails.get(part):
            code = self.fails[part].pop(0)
            if code is None:
                raise self.RayError("its worker died")
            if isinstance(code, int):
                return code
            code(arguments, log)
            return 2
        self.done.append(part)
        with Path(log).open("a") as file:
            answer = CliRunner().invoke(app, arguments)
            file.write(answer.output)
        return answer.exit_code

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference.arguments[0][-3])


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(retrying, "WAITS", (0.0, 0.0, 0.0))
    handler = signal.getsignal(signal.SIGTERM)
    with patch.dict("os.environ", run_environment()):
        yield fake
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


def run(recipe, runs, *, until="embed", fresh=None, parts=None):
    """A run up to the embedding; what it showed."""
    console = Console(file=StringIO(), width=300)
    run_plan(make_plan(recipe, [], runs, until), console, fresh=fresh, cluster=Cluster("auto", parts))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_a_run_makes_its_passes_in_parts_and_the_rest_here(recipe, ray, tmp_path):
    shown = run(recipe, tmp_path / "runs", parts=3)
    assert ray.addresses == ["auto"] and ray.done == ["prepare", "3/3", "2/3", "1/3"]
    assert ray.needs == [{"max_retries": 5, "num_gpus": 0, "num_cpus": 1}] * 4
    assert [line.split()[-2:] for line in shown if " embed " in line] == [["61", "rows"]]
    run_stage(recipe, [], tmp_path / "undivided", "pool")
    run_stage(recipe, [], tmp_path / "undivided", "embed")
    assert digest(recipe, tmp_path / "runs", "embed") == digest(recipe, tmp_path / "undivided", "embed")
    # Rebuilt, it is made here: a part would take the published artefact as it is.
    ray.done.clear()
    shown = run(recipe, tmp_path / "runs", fresh="embed")
    assert ray.done == [] and any(line.endswith("61 rows") and " embed " in line for line in shown)


def test_by_default_there_are_four_parts_for_each_worker(recipe, ray, tmp_path):
    run(recipe, tmp_path / "runs")
    assert sorted(part.partition("/")[2] for part in ray.done if part != "prepare") == ["12"] * 12


def test_a_part_with_a_mistake_ends_the_stage_with_its_message(recipe, ray, tmp_path):
    def mistake(arguments, log):
        Path(log).write_text("ignored\nerror: the recipe is wrong. Change it.\n")

    ray.fails = {"2/3": [mistake]}
    with pytest.raises(UserError, match=r"^embed: the recipe is wrong\. Change it\.$"):
        run(recipe, tmp_path / "runs", parts=3)
    assert ray.done == ["prepare", "3/3"] and len(ray.cancelled) == 1
    run(recipe, tmp_path / "runs", parts=3)


def test_a_part_whose_fault_may_pass_is_started_again(recipe, ray, tmp_path):
    def fault(arguments, log):
        work = Path(log).parent.parent
        error = {"rank": 0, "message": "the Hub does not serve now", "user_error": True, "passing": True}
        folder = work / "parts" / "2-of-3"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.json").write_text(json.dumps(error))

    ray.fails = {"2/3": [fault]}
    run(recipe, tmp_path / "runs", parts=3)
    assert sorted(ray.done) == ["1/3", "2/3", "3/3", "prepare"]
    ray.fails = {"2/3": [fault, fault]}
    with pytest.raises(UserError, match=r"^embed: the Hub does not serve now$"):
        run(recipe, tmp_path / "others", parts=3)


def test_a_worker_that_dies_too_often_fails_the_stage(recipe, ray, tmp_path):
    ray.fails = {"1/3": [None]}
    with pytest.raises(
        StageFailed, match=r"^embed failed: .*part 1/3: Ray has given it up \(RayError: its worker died\)"
    ):
        run(recipe, tmp_path / "runs", parts=3)


def test_without_ray_or_without_its_cluster(recipe, ray, tmp_path, monkeypatch):
    plan = make_plan(recipe, [], tmp_path / "runs", "embed")
    with pytest.raises(
        UserError, match=r"^--ray nowhere:1: no Ray cluster is reached there \(no such cluster\)\. Give"
    ):
        run_plan(plan, Console(file=StringIO()), cluster=Cluster("nowhere:1"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--ray needs the library Ray .*pip install 'deita-train\[ray\]'"):
        run_plan(plan, Console(file=StringIO()), cluster=Cluster("auto"))


def test_parts_without_a_cluster_are_refused(recipe):
    answer = CliRunner().invoke(app, ["run", str(recipe), "--parts", "3"])
    assert isinstance(answer.exception, UserError) and str(answer.exception).startswith("--parts: without --ray a run")


def test_a_task_is_a_process_whose_code_and_output_are_kept(tmp_path):
    log = tmp_path / "part.log"
    code = ray_parts.do_part(
        ["stage", "nothing.yaml", "--stage", "x", "--part", "9"], {"A": "b"}, str(tmp_path), str(log)
    )
    assert code == 2 and log.read_text().startswith("error: --part 9: that is no part.")

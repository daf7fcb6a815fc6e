"""What the shell offers at a tab, asked as bash asks, and `--version`."""

import platform
from importlib.metadata import version

import pytest
from tiny_recipe import no_gpus, plan, recipe  # noqa: F401
from typer.testing import CliRunner

import deita_train
from deita_train.cli import app
from deita_train.commands import version_line as module
from deita_train.commands.completion import recipe_files
from deita_train.plan.plan import run_record
from deita_train.stages.kinds import STAGE_KINDS

pytestmark = pytest.mark.usefixtures("no_gpus")


def offered(line):
    """What bash would offer after `deita-train <line>`."""
    words = f"deita-train {line}"
    asked = {"_DEITA_TRAIN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    answer = CliRunner().invoke(app, [], env=asked, prog_name="deita-train")
    assert answer.exit_code == 0, answer.output
    return answer.output.split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with recipes and other files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEITA_RUNS", raising=False)
    for name in ("recipes/deep/one.yaml", "recipes/a.yaml", "recipes/b.yml", "recipes/a.txt", "only/down/x.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "with space.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("command", ["run", "plan", "validate", "inspect", "stage"])
def test_a_recipe_is_completed_after_every_command_that_takes_one(here, command):
    assert offered(f"{command} recipes/a") == ["recipes/a.yaml"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ["only/", "recipes/"]),
        ("recipes/", ["recipes/a.yaml", "recipes/b.yml", "recipes/deep/"]),
        ("rec", ["recipes/a.yaml", "recipes/b.yml", "recipes/deep/"]),  # the only match, opened
        ("on", ["only/down/x.yaml"]),
        (".hid", []),
        ("recipes/z", []),
        ("nowhere/", []),
        ("~/", []),
        ("with", []),
    ],
)
def test_recipes_and_folders_are_offered(here, typed, found):
    assert recipe_files(typed) == found


def test_shipped_recipes_are_offered_once_something_is_typed(here):
    assert recipe_files("quick") == ["quickstart"]
    assert recipe_files("re") == ["real_pool", "recipes/"]
    assert offered("plan deita/deita-7b-v1.0-sft-6k") == [
        "deita/deita-7b-v1.0-sft-6k",
        "deita/deita-7b-v1.0-sft-6k-from-pool",
    ]
    assert offered("recipes sm") == ["smoke"]


def test_an_absolute_path_stays_absolute(here):
    assert recipe_files(f"{here}/recipes/a") == [f"{here}/recipes/a.yaml"]


def test_the_stages_of_a_recipe_that_was_started_are_offered(here):
    made = plan(here, recipe(sweep={"select.method": ["random"], "until": "sft"}))
    assert offered("run recipe.yaml --until s") == [kind for kind in STAGE_KINDS if kind.startswith("s")]
    made.run_dir.mkdir(parents=True)
    run_record(made).write(made.run_dir)
    assert offered("run recipe.yaml --until s") == ["score.complexity", "score.quality", "select", "sft"]
    assert offered("run recipe.yaml --fresh train_scorer.q") == ["train_scorer.quality"]
    assert offered("inspect recipe.yaml --stage sf") == ["sft"]
    assert offered("stage recipe.yaml --stage sft") == [made.cells[0].nodes["sft"].id, made.cells[1].nodes["sft"].id]
    assert offered("plan recipe.yaml --runs elsewhere --until sel") == [
        kind for kind in STAGE_KINDS if kind.startswith("sel")
    ]


def test_stages_of_what_is_no_recipe_are_those_of_every_kind(here):
    (here / "bad.yaml").write_text("a: [1\n")
    for file in ("bad.yaml", "none.yaml"):
        assert offered(f"run {file} --until dp") == ["dpo"]
    assert offered("stage bad.yaml --stage sf") == []


def test_completion_can_be_shown_and_installed():
    help_text = CliRunner().invoke(app, ["--help"]).output
    assert "--install-completion" in help_text and "--show-completion" in help_text


def test_one_line_holds_the_versions(monkeypatch):
    answer = CliRunner().invoke(app, ["--version"])
    wanted = [f"{package} {version(package)}" for package in ("torch", "transformers", "trl", "datasets")]
    python = f"Python {platform.python_version()}"
    assert answer.exit_code == 0
    assert answer.output == f"deita-train {deita_train.__version__} ({', '.join([python, *wanted])})\n"
    assert deita_train.__version__ == version("deita-train")


def test_a_library_that_is_missing_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(module, "_SHOWN", ("torch", "no-such-package"))
    assert module.version_line().endswith(", no-such-package not installed)")

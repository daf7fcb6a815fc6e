"""Recipes by their names: listed, written out, run where no file has the name, and in a wheel."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.recipe import shipped
from deita_train.recipe.loading import load_recipe
from deita_train.recipe.shipped import find_recipe, name_of, near_names, shipped_recipes
from deita_train.recipe.yaml_source import load_yaml

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
NAMES = sorted(path.relative_to(RECIPES).as_posix().removesuffix(".yaml") for path in RECIPES.rglob("*.yaml"))


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, list(words))


def test_every_recipe_is_listed_with_its_description():
    assert list(shipped_recipes()) == NAMES and len(NAMES) == 47
    answer = invoke("recipes")
    assert answer.exit_code == 0
    lines = [line.split(maxsplit=1) for line in answer.output.splitlines()]
    listed = {words[0]: words[1] for words in lines if len(words) == 2 and words[0] in NAMES}
    assert list(listed) == NAMES
    for name, text in listed.items():
        description = " ".join(load_yaml(RECIPES / f"{name}.yaml")[0]["description"].split())
        assert re.fullmatch(r"[A-Z].*[.]", description), name
        assert description.startswith(text.strip()), name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_written_out_byte_for_byte(name):
    answer = invoke("recipes", name)
    assert answer.exit_code == 0
    assert answer.stdout_bytes == (RECIPES / f"{name}.yaml").read_bytes()


def test_a_name_is_a_recipe_where_there_is_no_such_file(empty):
    file = RECIPES / "smoke.yaml"
    assert find_recipe(Path("smoke")).samefile(file)
    assert find_recipe(Path("deita/deita-7b-v1.0")).samefile(RECIPES / "deita" / "deita-7b-v1.0.yaml")
    assert find_recipe(Path("recipes/smoke.yaml")) == Path("recipes/smoke.yaml")
    (empty / "smoke").mkdir()  # such as a folder of results
    assert find_recipe(Path("smoke")).samefile(file)
    (empty / "smoke").rmdir()
    (empty / "smoke").write_text("name: mine")
    assert find_recipe(Path("smoke")) == Path("smoke")
    assert name_of(file) == "smoke" and name_of(empty / "smoke") is None


def test_commands_take_a_name(empty):
    answer = invoke("plan", "smoke", "--until", "select")
    assert answer.exit_code == 0 and "train_scorer.quality" in answer.output
    answer = invoke("validate", "smoke", "--set", "select.budgt=1")
    assert isinstance(answer.exception, SystemExit) and "did you mean budget?" in answer.output
    # What such a command prints leads to the same recipe from anywhere.
    made = make_plan(find_recipe(Path("smoke")), [], Path("runs"))
    assert Path(made.arguments()[0]).is_absolute()


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("quikstart", ["quickstart"]),
        ("recipes/quickstart.yaml", ["quickstart"]),
        ("deita-7b-v1.0", ["deita/deita-7b-v1.0", "deita/deita-7b-v1.0-from-pool", "deita/deita-7b-v1.0-from-seeds"]),
        ("llama2", ["deita/deita-llama2-13b-sft"]),
        ("SMOKE", ["smoke"]),
        ("zzzzzz", []),
    ],
)
def test_a_misspelt_name_gets_the_nearest(typed, near):
    assert near_names(typed)[: len(near)] == near and len(near_names(typed)) <= 3
    if near:
        assert near[0] in str(invoke("plan", typed).exception) and near[0] in str(invoke("recipes", typed).exception)
    else:
        with pytest.raises(UserError, match=r"zzzzzz: no recipe of that name.*`deita-train recipes` lists them"):
            shipped.shipped_recipe(typed)


def test_a_file_that_a_shipped_recipe_names_is_asked_for(empty):
    with pytest.raises(UserError) as caught:
        make_plan(find_recipe(Path("own_data")), [], empty / "runs", "pool")
    text = str(caught.value)
    assert "my_pool.jsonl does not exist" in text and str(empty) in text
    assert "State yours with --set pool.dataset=PATH, or in a copy: deita-train recipes own_data > my.yaml" in text
    (empty / "mine.yaml").write_bytes((RECIPES / "own_data.yaml").read_bytes())
    with pytest.raises(UserError) as caught:
        make_plan(empty / "mine.yaml", [], empty / "runs", "pool")
    assert "State yours" not in str(caught.value)


def test_one_statement_of_the_shared_file_reaches_every_section(empty):
    recipe = load_recipe(RECIPES / "real_pool.yaml", ["x-file=other.jsonl"]).recipe
    train = recipe.scorers.quality.train
    sources = [recipe.base.pretrain.data, recipe.pool, train.data, train.heldout, recipe.evaluate.heldout]
    assert [source.dataset for source in sources] == ["other.jsonl"] * 5
    assert train.data.label == "win_probability" and train.data.instruction_share == [0.05, 0.5]
    assert (RECIPES / "real_pool.yaml").read_text().count("real_pool_sharegpt.jsonl") == 2  # one is a comment
    for setting, message in {"x-file": "no '='", "x-fil=a": "and no x-fil"}.items():
        with pytest.raises(UserError, match=message):
            load_recipe(RECIPES / "real_pool.yaml", [setting])


@pytest.mark.faults
def test_an_installed_wheel_has_the_recipes(empty):
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(empty / "wheels")],
        capture_output=True, text=True,
    )  # fmt: skip
    if "hatchling" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("no network: hatchling, which builds the wheel, cannot be had")
    assert built.returncode == 0, built.stderr
    (wheel,) = (empty / "wheels").glob("deita_train-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"deita_train/recipes/{name}.yaml" for name in NAMES} <= packed
    assert {"deita_train/recipes/recipe.schema.json", "deita_train/recipes/slurm/multi_node.sbatch"} <= packed

    venv.create(empty / "venv", with_pip=False)
    python = str(empty / "venv" / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(install, check=True)
    (site,) = (empty / "venv" / "lib").glob("python3*/site-packages")
    # The packages that it needs, without the checkout that is installed beside them as editable.
    own = next(path for path in map(Path, sys.path) if (path / "pydantic").is_dir())
    (empty / "libraries").mkdir()
    for package in own.iterdir():
        if "deita" not in package.name and package.suffix != ".pth":
            (empty / "libraries" / package.name).symlink_to(package)
    (site / "libraries.pth").write_text(f"{empty / 'libraries'}\n")
    (empty / "nowhere").mkdir()

    def installed(*words):
        command = [str(empty / "venv" / "bin" / "deita-train"), *words]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(empty), "COLUMNS": "200"}
        return subprocess.run(command, cwd=empty / "nowhere", env=environment, capture_output=True)

    listed = installed("recipes")
    assert listed.returncode == 0, listed.stderr
    first_words = [line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()]
    assert [word for word in first_words if word in NAMES] == NAMES
    assert installed("recipes", "quickstart").stdout == (RECIPES / "quickstart.yaml").read_bytes()
    planned = installed("plan", "smoke", "--stages")
    assert planned.returncode == 0, planned.stderr
    assert str(site / "deita_train" / "recipes" / "smoke.yaml") in planned.stdout.decode()

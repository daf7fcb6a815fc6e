"""Which part of the package may import which, and that the command line answers before anything heavy is loaded."""

import ast
import json
import os
import re
import resource
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import deita_train

PACKAGE = Path(deita_train.__file__).parent
SMOKE = PACKAGE.parent / "recipes" / "smoke.yaml"
COMPONENTS = frozenset(
    {"cost", "data", "models", "inference", "llm", "evolve", "evaluation", "scoring", "selection", "training", "report"}
)
# From the ground up: a room imports those before it, and components each other.
ABOVE_COMPONENTS = frozenset({"stages", "recipe", "plan", "run", "commands", "cli"})
GROUND = ("errors", "budget", "cell_settings", "number_text", "table", "__init__")
# Area -> the areas that it never imports, not even inside a function.
FORBIDDEN = {
    **{ground: ABOVE_COMPONENTS | COMPONENTS | {"store"} for ground in GROUND},
    "store": ABOVE_COMPONENTS | COMPONENTS,
    **{component: ABOVE_COMPONENTS for component in COMPONENTS},
    "stages": ABOVE_COMPONENTS - {"stages"},
    "recipe": ABOVE_COMPONENTS - {"recipe"} | COMPONENTS,
    "plan": frozenset({"run", "commands", "cli"}),
    "run": frozenset({"commands", "cli"}),
    "commands": frozenset({"cli"}),
    "cli": frozenset(),
}
# Planning knows the kinds of stages, not their code.
PLAN_KNOWS_OF_STAGES = "deita_train.stages.kinds"
# A recipe knows the names of formats, the rules of selection, of addresses and the defaults of trainings, which import
# nothing heavy, not their code.
RECIPE_KNOWS = (
    "deita_train.data.formats.", "deita_train.selection.settings.", "deita_train.training.defaults.",
    "deita_train.llm.addresses.", "deita_train.evaluation.published.",
)  # fmt: skip
LIGHT = frozenset({"cli", "commands", "recipe", "plan", "run", "store", "cost", *GROUND})
HEAVY = frozenset(
    [
        "torch",
        "transformers",
        "trl",
        "datasets",
        "peft",
        "accelerate",
        "deepspeed",
        "numpy",
        "pandas",
        "matplotlib",
        "scipy",
        "pyarrow",
        "tokenizers",
        "safetensors",
        "wandb",
        "huggingface_hub",
        "jinja2",
        "openai",
        "ray",
        "httpx2",
    ]
)
# Of the components, what asks servers: a stage that asks one needs no torch, and openai takes two seconds.
LIGHT_OF_LLM = frozenset(PACKAGE.glob("llm/*.py")) - {PACKAGE / "llm" / "local.py"}
# The command line as another process's program is not imported.
MODULE = re.compile(r"deita_train(?!\.cli$)(\.\w+)+")
FILES = sorted(PACKAGE.rglob("*.py"))


def area(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node, package):
    """The dotted names that one syntax node imports; text that is a module's name counts, for import_module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = resolve_name("." * node.level + (node.module or ""), package)
        return [f"{module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("deita_train."):
        return [node.value] if MODULE.fullmatch(node.value) else []
    return []


def imports_of(path, at_module_level=False):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    found = []
    while nodes:
        node = nodes.pop()
        found += imported(node, ".".join(parts[:-1]))
        if not (at_module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
    return found


def area_of_import(name):
    first, *rest = name.split(".")
    return rest[0] if first == "deita_train" and rest else None


def test_every_file_is_seen_and_belongs_to_an_area():
    assert len(FILES) > 50
    assert {area(path) for path in FILES} <= set(FORBIDDEN)
    assert sum(area_of_import(name) is not None for path in FILES for name in imports_of(path)) > 100


def test_the_reader_of_imports_finds_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "deita_train")
    file = tmp_path / "deita_train" / "data" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import torch.nn as t\nfrom deita_train import run\nfrom ..stages import pool\n"
        "if True:\n    import numpy\n"
        "def f():\n    from deita_train.recipe.schema import Recipe\n    m('deita_train.stages.training.sft')\n"
    )
    outside = {"torch.nn", "deita_train.run", "deita_train.stages.pool", "numpy"}
    assert set(imports_of(file, at_module_level=True)) == outside
    assert set(imports_of(file)) == outside | {"deita_train.recipe.schema.Recipe", "deita_train.stages.training.sft"}


@pytest.mark.parametrize("of", sorted({area(path) for path in FILES}))
def test_imports_go_in_one_direction(of):
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        if area(path) == of
        for name in imports_of(path)
        if area_of_import(name) in FORBIDDEN[of] and not (of == "recipe" and name.startswith(RECIPE_KNOWS))
    ]
    assert wrong == []


def test_cli_recipe_and_run_import_nothing_heavy_at_module_level():
    light = [path for path in FILES if area(path) in LIGHT]
    assert len(light) > 20
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in light
        for name in imports_of(path, at_module_level=True)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def run_python(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_importing_cli_recipe_run_and_the_client_of_servers_loads_nothing_heavy():
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if area(path) in LIGHT or path in LIGHT_OF_LLM
    ]
    program = """
import importlib, json, sys
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    loaded = set(json.loads(run_python(program, json.dumps(modules))))
    assert "deita_train" in loaded and {"deita_train.run.runner", "deita_train.llm.client"} <= set(modules)
    assert loaded & HEAVY == set()


def test_a_plan_loads_nothing_heavy(tmp_path):
    program = """
import sys
from deita_train.cli import app
app(["plan", *sys.argv[1:]], standalone_mode=False)
heavy = {"torch", "transformers", "trl", "datasets", "accelerate", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "`--stages` prints the commands" in run_python(program, str(SMOKE), "--runs", str(tmp_path))


@pytest.mark.parametrize(("arguments", "limit"), [(["--help"], 1.0), (["plan", str(SMOKE)], 1.5)])
def test_the_command_line_answers_at_once(tmp_path, arguments, limit):
    """Seconds of a core, so that what else the machine does is not counted."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "deita_train.cli", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "DEITA_RUNS": str(tmp_path)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < limit


def test_planning_knows_the_kinds_of_stages_and_none_of_their_code():
    of_stages = {
        name for path in FILES if area(path) == "plan" for name in imports_of(path) if area_of_import(name) == "stages"
    }
    assert {name.rpartition(".")[0] for name in of_stages} <= {PLAN_KNOWS_OF_STAGES}

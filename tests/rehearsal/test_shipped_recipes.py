"""Every shipped recipe is rehearsed: carried out to its report, on a machine without a Hub and without GPUs."""

import shutil
from pathlib import Path

import pytest
from rehearsal_parts import RECIPES, rehearsed
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.plan.plan import make_plan, missing_ids
from deita_train.recipe.loading import load_recipe
from deita_train.store.atomic_io import read_json
from deita_train.store.rehearsals import read_rehearsal

FILES = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.y*ml"))
QUICK = ("own_data.yaml",)
pytestmark = [
    pytest.mark.usefixtures("offline", "no_gpus"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles a small op and there is no g++"),
    pytest.mark.timeout(1800),
]


def test_every_shipped_recipe_is_here():
    assert len(FILES) == 47
    assert set(QUICK) <= set(FILES)


@pytest.mark.parametrize(
    "file", [file if file in QUICK else pytest.param(file, marks=pytest.mark.faults) for file in FILES]
)
def test_it_comes_to_its_report(file, own_files, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")  # which a rehearsal wants as the real run does
    path = RECIPES / file
    text, done = rehearsed(path, own_files / "runs")
    assert done.outcome.error is None, text
    plan = done.plan
    assert missing_ids(plan) == set()
    assert plan.run_dir == own_files / "runs" / "rehearsals" / Path(file).stem / f"REHEARSAL-{Path(file).stem}"
    # The same stages as the real base run, each with a line.
    real = load_recipe(path).recipe
    labels = [stage.label for stage in read_rehearsal(plan.run_dir)]
    assert set(plan.cells[0].nodes) <= set(labels)
    for section, label in (("sft", "sft"), ("dpo", "dpo"), ("select", "select"), ("embedding", "embed")):
        assert (getattr(real, section) is not None) == (label in labels)
    for label, node in plan.cells[0].nodes.items():
        launched = node.runtime.get("launch")
        if launched is not None and "zero3" in launched["config_file"]:
            manifest = plan.store.manifest(node.id)
            assert (label in ("sft", "dpo"), manifest.world_size) == (True, 2)
    page = done.outcome.page.read_text()
    assert "REHEARSAL, no result" in page and page.count("REHEARSAL: ") >= 1
    assert all(table["title"].startswith("REHEARSAL") for table in read_json(plan.run_dir / "report" / "result.json"))
    # Nothing lies in the real runs' place.
    assert [one.name for one in (own_files / "runs").iterdir()] == ["rehearsals"]
    assert make_plan(plan.loaded.path, [], plan.runs_dir).nodes

"""Two real ranks under accelerate launch against one process, joined by id."""

import json
import shutil

import datasets
import numpy as np
import pytest
from smoke_run import run_smoke

TWO_RANKS = [
    argument
    for section in ("scorers.complexity", "scorers.quality", "embedding")
    for argument in ("--set", f"{section}.launch=cpu_ddp")
]
PASSES = {"score.complexity": "complexity_scores", "score.quality": "quality_scores", "embed": "embedding"}


@pytest.fixture(scope="module")
def two_ranks(undisturbed, tmp_path_factory):
    """The undisturbed run's models and pool, scored, embedded and selected again by two ranks."""
    runs = tmp_path_factory.mktemp("two_ranks")
    shutil.copytree(undisturbed / "store", runs / "store")
    record = json.loads((undisturbed / "smoke" / "stages.json").read_text())
    for label in (*PASSES, "select"):
        shutil.rmtree(runs / "store" / record["cells"][0]["stages"][label])
    answer = run_smoke(runs, "--until", "select", *TWO_RANKS)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs, record["cells"][0]["stages"]


def table(runs, artefact, column):
    rows = datasets.load_from_disk(str(runs / "store" / artefact / "data"))
    return dict(zip(rows["id"], rows[column], strict=True))


@pytest.mark.parametrize(("label", "column"), PASSES.items())
def test_two_ranks_agree_with_one_by_id(undisturbed, two_ranks, label, column):
    runs, ids = two_ranks
    manifest = json.loads((runs / "store" / ids[label] / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    one, two = table(undisturbed, ids[label], column), table(runs, ids[label], column)
    assert one.keys() == two.keys() and len(one) == 240
    for row_id, values in one.items():
        expected = np.array(values, dtype=np.float64)
        np.testing.assert_allclose(np.array(two[row_id], dtype=np.float64), expected, rtol=0, atol=1e-5)


def test_the_selection_is_the_same(undisturbed, two_ranks):
    runs, ids = two_ranks
    kept = [list(datasets.load_from_disk(str(r / "store" / ids["select"] / "data"))["id"]) for r in (undisturbed, runs)]
    assert kept[0] == kept[1] and len(kept[0]) > 1

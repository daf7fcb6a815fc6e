"""Data in the form in which OpenDataArena publishes it: some thirty numbers a row, as objects in a column."""

import datasets
import pyarrow.parquet as pq
import pytest
from tiny_recipe import graph, no_gpus, recipe  # noqa: F401

from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import pool
from deita_train.stages.selecting import select

pytestmark = pytest.mark.usefixtures("no_gpus")
# Some of the published names, filled up to thirty.
NAMES = ["IFD", "PPL", "Deita_Quality", "Deita_Complexity", "SkyworkRM_Llama", "VOCD-D"]
NAMES += [f"Metric_{number}" for number in range(24)]
IFD = [0.5, None, 0.9, 0.7]
QUALITY = [3.0, 6.0, 1.0, 5.0]


def published_row(number):
    raw = {name: float(number) for name in NAMES} | {"IFD": IFD[number], "Deita_Quality": QUALITY[number]}
    scaled = {name: value and value / 10 for name, value in raw.items()}
    return {"instruction": f"Question {number}?", "output": "An answer.", "raw_scores": raw, "processed_scores": scaled}


def carried_out(node, parents, folder, module):
    folder.mkdir()
    context = StageContext(node.label, node.kind, node.identity, node.runtime, parents, folder, 0, 1, Progress(None))
    return module.run(context)


def test_thirty_numbers_a_row_are_read_and_weighed_by_one_section(tmp_path):
    file = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(datasets.Dataset.from_list([published_row(number) for number in range(4)]).data.table, file)
    weights = {"raw_scores.Deita_Quality": 1.0, "raw_scores.IFD": 1.0, "processed_scores.VOCD-D": 0.5}
    told = {"method": "weighted", "score": {"weights": weights, "scale": "rank"}}
    nodes = graph(tmp_path, recipe("sft", "evaluate", pool={"dataset": str(file)}, select={**told, "budget": 2}))
    carried_out(nodes["pool"], {}, tmp_path / "pool", pool)
    rows = datasets.load_from_disk(str(tmp_path / "pool" / "data"))
    assert [len(row["raw_scores"]) for row in rows] == [30] * 4
    result = carried_out(nodes["select"], {"pool": tmp_path / "pool"}, tmp_path / "select", select)
    kept = datasets.load_from_disk(str(tmp_path / "select" / "data"))
    # Row 1 has no IFD. Ranks of 0, 2, 3: quality 3/6, 1/6, 5/6; IFD 1/6, 5/6, 3/6; VOCD-D 1/6, 3/6, 5/6, half as much.
    assert [row["messages"][0]["content"] for row in kept] == ["Question 3?", "Question 2?"]
    assert list(kept["selection_score"]) == pytest.approx([1.75, 1.25])
    assert result.drops == {"no_weighted_number": 1, "not_selected": 1}
    assert kept[0]["processed_scores"]["IFD"] == 0.7 / 10

"""The recipe of the pool of real answers, read with that pool: its rehearsal has rows of its own."""

from pathlib import Path

from deita_train.commands.validation import validate_data
from deita_train.plan.plan import make_plan

RECIPE = Path(__file__).parents[2] / "recipes" / "real_pool.yaml"


def test_nothing_in_the_real_pool_stops_it(tmp_path, shared):
    file = shared / "data" / "real_pool_sharegpt.jsonl"
    checked = validate_data(make_plan(RECIPE, [f"x-file={file}"], tmp_path))
    assert checked.problems == []
    assert "train_scorer.quality data: 4,318 labelled rows" in checked.lines

import json

import datasets
import pytest

from deita_train.data.quickstart import make_preferences
from deita_train.errors import UserError
from deita_train.stages.checks import check_artefact, content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake.preferences import run

SHAPE = {"format": None, "roles": {}, "instruction_share": None}
BUILTIN = {"builtin": "quickstart_preferences", "rows": 40, "seed": 3, **SHAPE}


def context(folder, identity, location=None):
    settings = {"source": location or {}}
    return StageContext(
        "preferences", "dpo_data", {"source": identity}, settings, {}, folder, 0, 1, Progress(folder / "progress.json")
    )


def carried_out(folder, identity, location=None):
    """The stage's result, after the checks that precede publishing."""
    folder.mkdir()
    made = context(folder, identity, location)
    result = run(made)
    left = {name: getattr(result, name) for name in ("rows_in", "rows_out", "drops", "metrics")}
    check_artefact(made, json.loads(json.dumps(left)))
    return result, datasets.load_from_disk(str(made.data_dir))


def write_pairs(path, bad=2):
    rows = [{"prompt": f"q{i}", "chosen": "yes, it is", "rejected": "no", "id": f"i{i}"} for i in range(30)]
    rows += [{"prompt": "q", "chosen": "same", "rejected": "same", "id": f"bad{i}"} for i in range(bad)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return {"content": "abc", "name": path.name, "split": None, **SHAPE}, {"dataset": str(path)}


def test_generated_pairs(tmp_path):
    result, pairs = carried_out(tmp_path / "work", BUILTIN)
    assert (result.rows_in, result.rows_out, result.drops) == (40, 40, {})
    assert [{name: row[name] for name in row} for row in pairs] == [
        {name: row[name] for name in pairs.column_names} for row in make_preferences(40, 3)
    ]


def test_a_file_with_a_sample(tmp_path):
    identity, location = write_pairs(tmp_path / "pairs.jsonl")
    result, pairs = carried_out(tmp_path / "work", {**identity, "sample": 10, "seed": 1}, location)
    assert (result.rows_in, result.rows_out) == (32, 10)
    assert result.drops == {"answers_equal": 2, "not_sampled": 20}
    assert len(pairs) == 10 and set(pairs["id"]) <= {f"i{i}" for i in range(30)}
    metrics = result.metrics
    assert (metrics["rows_in"], metrics["drops"], metrics["format"]) == (32, result.drops, "prompt_pairs")
    assert list(metrics["examples"]) == ["answers_equal"]
    # "yes, it is" has ten characters, "no" two.
    lengths = [metrics[name] for name in ("mean_chosen_chars", "mean_rejected_chars", "chosen_longer_share")]
    assert lengths == [10.0, 2.0, 1.0]


def test_the_same_pairs_have_the_same_digest_and_another_seed_another_one(tmp_path):
    identity, location = write_pairs(tmp_path / "pairs.jsonl")
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / f"work{number}"
        carried_out(folder, {**identity, "sample": 10, "seed": seed}, location)
        digests.append(content_digest(folder))
    assert digests[0] == digests[1] != digests[2]


def test_format_roles_and_share_of_the_recipe_count(tmp_path):
    rows = [
        {"prompt": "x", "conversations": [{"from": "asker", "value": f"q{i}"}], "chosen": "a", "rejected": "b"}
        for i in range(40)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    location = {"dataset": str(tmp_path / "pairs.json")}
    identity = {"content": "abc", "name": "pairs.json", "split": None, **SHAPE, "roles": {"asker": "user"}}
    result, pairs = carried_out(tmp_path / "one", {**identity, "instruction_share": [0.0, 0.5]}, location)
    assert 0 < len(pairs) < 40
    assert result.metrics["rows_outside_share"] == 40 - len(pairs)
    _, pairs = carried_out(tmp_path / "other", {**identity, "format": "prompt_pairs"}, location)
    assert pairs["prompt"][:] == [[{"role": "user", "content": "x"}]] * 40


def test_a_sample_that_is_too_large_leaves_nothing(tmp_path):
    identity, location = write_pairs(tmp_path / "pairs.jsonl")
    made = context(tmp_path, {**identity, "sample": 31, "seed": 1}, location)
    with pytest.raises(UserError, match=r"31 pairs are asked for, and pairs has 30 usable"):
        run(made)
    assert not made.data_dir.exists()

"""In which published artefacts a stage may find rows again; and two pools scored and embedded one after the other."""

import json
from dataclasses import asdict, replace

import datasets
import numpy as np
import pytest
from pass_stages import conversations, make_model
from rich.console import Console
from tiny_recipe import a_manifest, no_gpus, plan, recipe, write  # noqa: F401

from deita_train.commands.exports import export_table
from deita_train.data.outputs import Output
from deita_train.plan.plan import make_plan
from deita_train.run.child.reusable_artefacts import find_reusable
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.kinds import STAGE_KINDS

PASSES = ("score.quality", "score.complexity", "embed")


def of(node):
    return a_manifest(node, key=node.key, config=dict(node.identity))


def publish(nodes, store):
    """Write the manifest of every stage that has none."""
    for node in nodes:
        manifest = of(node)
        folder = store.path(node.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))


def first_and(folder, **changes):
    """Publish the tiny recipe; the artefacts' ids by label, and the plan of one with a larger pool and `changes`, of
    which the data and the models are made."""
    first = plan(folder, recipe())
    publish(first.nodes, first.store)
    ids = {label: node.id for label, node in first.cells[0].nodes.items()}
    second = plan(folder, recipe(**{"pool__rows": 70, **changes}))
    publish([node for node in second.nodes if node.kind in ("pool", "base", "train_scorer")], second.store)
    return ids, second


def names(made, label):
    return [path.name for path in find_reusable(made.store, made.cells[0].nodes[label])]


def test_the_same_model_over_another_pool_is_reusable(tmp_path, no_gpus):  # noqa: F811
    ids, second = first_and(tmp_path)
    assert {label: names(second, label) for label in PASSES} == {label: [ids[label]] for label in PASSES}
    assert names(second, "pool") == names(second, "select") == names(second, "evaluate.base") == []


OTHERS = [
    ("embed", {"embedding__max_length": 99}),
    ("embed", {"embedding__dtype": "bfloat16"}),
    ("embed", {"embedding__chat_template": "own.jinja"}),
    ("embed", {"base__pretrain__global_batch_size": 4}),
    ("embed", {"embedding__reuse_rows": False}),
    ("score.quality", {"scorers__quality__max_length": 99}),
    ("score.quality", {"scorers__quality__dtype": "bfloat16"}),
    ("score.quality", {"scorers__quality__train__seed": 3}),
    ("score.quality", {"scorers__quality__reuse_rows": False}),
]


@pytest.mark.parametrize(("label", "changes"), OTHERS)
def test_another_model_template_dtype_or_length_is_none(tmp_path, no_gpus, label, changes):  # noqa: F811
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    changes = {name: str(tmp_path / value) if value == "own.jinja" else value for name, value in changes.items()}
    ids, second = first_and(tmp_path, **changes)
    assert names(second, label) == []
    assert names(second, "score.complexity") == (
        [] if "base__pretrain__global_batch_size" in changes else [ids["score.complexity"]]
    )


def test_how_the_work_is_done_does_not_matter(tmp_path, no_gpus):  # noqa: F811
    ids, second = first_and(tmp_path, embedding__launch="cpu_ddp", embedding__max_batch_tokens=99, select__budget=3)
    assert names(second, "embed") == [ids["embed"]]


def test_another_version_of_the_code_is_none(tmp_path, no_gpus, monkeypatch):  # noqa: F811
    _, second = first_and(tmp_path)
    monkeypatch.setitem(STAGE_KINDS, "embed", replace(STAGE_KINDS["embed"], version=99))
    assert names(second, "embed") == [] != names(second, "score.quality")


def test_one_whose_pool_was_removed_is_none(tmp_path, no_gpus):  # noqa: F811
    ids, second = first_and(tmp_path)
    (second.store.path(ids["pool"]) / "manifest.json").unlink()
    assert names(second, "embed") == []


def test_a_model_made_anew_with_other_content_is_another_one(tmp_path, no_gpus):  # noqa: F811
    ids, second = first_and(tmp_path)
    file = second.store.path(ids["base"]) / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "content_digest": "another"}))
    assert names(second, "embed") == [] != names(second, "score.quality")


def test_a_stage_made_anew_takes_nothing(tmp_path, no_gpus):  # noqa: F811
    """What lies in reusable artefacts may have been taken from it."""
    first_and(tmp_path)
    second = plan(tmp_path, recipe(pool__rows=70))
    for label in PASSES:
        node = second.cells[0].nodes[label]
        second.store.path(node.id).mkdir()
        manifest = of(node)
        (second.store.path(node.id) / "manifest.json").write_text(json.dumps(asdict(manifest)))
        assert names(second, label) == []


@pytest.fixture
def two_pools(tmp_path, no_gpus, monkeypatch):  # noqa: F811
    """A function that carries out the passes over the first rows of a pool, in this process."""
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    make_model(tmp_path / "model")

    def carry_out(num_rows, **changes):
        file = tmp_path / f"rows-{num_rows}" / "rows.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in conversations(num_rows)))
        model = {"model": str(tmp_path / "model")}
        data = recipe(
            "base", "sft", "evaluate", "select", pool={"dataset": str(file)}, embedding=dict(model),
            scorers={"quality": {**model, "min_digit_mass": 0.0}}, **changes,
        )  # fmt: skip
        made = plan(tmp_path, data)
        nodes = made.cells[0].nodes
        for label in ("pool", "score.quality", "embed"):
            if not made.store.has(nodes[label].id):
                run_stage(write(tmp_path, data), [], tmp_path / "runs", nodes[label].id)
        return {label: made.store.path(node.id) for label, node in nodes.items()}

    return carry_out


def numbers(folder, column):
    """Of each row, what its scores or its embedding are bitwise."""
    table = datasets.load_from_disk(str(folder / "data"))
    return {
        row: np.array(value, dtype=np.float32).tobytes() for row, value in zip(table["id"], table[column], strict=True)
    }


def test_four_more_rows_score_and_embed_four(two_pools, capsys):
    first = two_pools(40)
    capsys.readouterr()
    second = two_pools(44)
    log = capsys.readouterr().out
    passes = [("score.quality", "quality_scores", 60, 6), ("embed", "embedding", 40, 4)]
    for label, column, old, new in passes:
        metrics = json.loads((second[label] / "metrics.json").read_text())
        assert (metrics["rows"], metrics["rows_reused"]) == (44, old)
        assert metrics["reused_from"] == {first[label].name: old}
        assert f"rank 0: {new} of {new} rows" in log
        before, after = numbers(first[label], column), numbers(second[label], column)
        assert len(before) == 40 and len(after) == 44 and before.items() <= after.items()


def test_a_file_for_others_has_no_hashes(two_pools, tmp_path):
    two_pools(4)
    columns = {"score.quality": {"id", "quality_scores", "reasons", "shortened"}, "embed": {"id", "embedding"}}
    for label, wanted in columns.items():
        output = Output.for_rows(str(tmp_path / f"{label}.parquet"), overwrite=False)
        export_table(make_plan(tmp_path / "recipe.yaml", [], tmp_path / "runs"), label, output, Console(quiet=True))
        assert set(datasets.Dataset.from_parquet(str(output.path)).column_names) == wanted


def test_a_recipe_may_have_all_rows_computed(two_pools):
    two_pools(20)
    second = two_pools(30, scorers__quality__reuse_rows=False, embedding__reuse_rows=False)
    for label in ("score.quality", "embed"):
        metrics = json.loads((second[label] / "metrics.json").read_text())
        assert (metrics["rows_reused"], metrics["reused_from"]) == (0, {})

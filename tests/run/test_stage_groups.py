"""Which passes share a process, and that the order stays one in which everything can be made."""

import json
import random

import pytest
from tiny_recipe import graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.run.groups import in_groups, shares_a_process

pytestmark = pytest.mark.usefixtures("no_gpus")
PEFT = {"r": 4}
BOTH = {"scorers__complexity__train__peft": PEFT, "scorers__quality__train__peft": PEFT}


def groups(folder, data, missing=None):
    """The labels in groups; all stages are missing unless `missing` has the labels of those that are."""
    return in_labels(list(graph(folder, data).values()), missing)


def in_labels(nodes, missing=None):
    ids = {node.id for node in nodes if missing is None or node.label in missing}
    return [[node.label for node in group] for group in in_groups(nodes, ids)]


def together(found):
    return [group for group in found if len(group) > 1]


def test_adapters_and_the_embedding_over_one_base_come_after_both_trainings(tmp_path):
    found = groups(tmp_path, recipe("evaluate", **BOTH))
    assert found == [
        ["pretraining_data"],
        ["base"],
        ["pool"],
        ["train_scorer.complexity"],
        ["train_scorer.quality"],
        ["score.complexity", "score.quality", "embed"],
        ["select"],
        ["sft"],
    ]


def test_without_adapters_the_order_is_the_plans(tmp_path):
    nodes = graph(tmp_path, recipe())
    assert groups(tmp_path, recipe()) == [[label] for label in nodes]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({**BOTH, "scorers__quality__train__merge_adapter": True}, [["score.complexity", "embed"]]),
        ({"scorers__quality__train__peft": PEFT}, [["score.quality", "embed"]]),
        ({**BOTH, "embedding__dtype": "bfloat16"}, [["score.complexity", "score.quality"]]),
        ({**BOTH, "scorers__quality__launch": "cpu_ddp"}, [["score.complexity", "embed"]]),
        (
            {**BOTH, "scorers__complexity__launch": "cpu_ddp", "scorers__quality__launch": "cpu_ddp"}
            | {"embedding__launch": "cpu_ddp"},
            [],
        ),
        # A scorer that is the base itself, untrained.
        ({"scorers__complexity__train": None, "scorers__complexity__model": "base"}, [["score.complexity", "embed"]]),
    ],
)
def test_what_differs_in_base_dtype_or_launch_stays_apart(tmp_path, changes, expected):
    assert together(groups(tmp_path, recipe(**changes))) == expected


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["score.quality", "embed"], [["score.quality", "embed"]]),
        (["score.complexity", "score.quality"], [["score.complexity", "score.quality"]]),
        (["embed"], []),
        ([], []),
    ],
)
def test_only_what_is_missing_is_grouped(tmp_path, missing, expected):
    assert together(groups(tmp_path, recipe(**BOTH), missing)) == expected


def test_models_from_outside_are_known_by_their_base(tmp_path):
    base, other = (a_model(tmp_path / name, name) for name in ("base", "other"))
    complexity, quality = (an_adapter(tmp_path / name, base, name) for name in ("complexity", "quality"))
    models = {
        "scorers": {"complexity": {"model": str(complexity)}, "quality": {"model": str(quality)}},
        "embedding__model": str(base),
    }
    data = recipe("base", "select", "sft", "evaluate", **models)
    assert together(groups(tmp_path, data)) == [["score.complexity", "score.quality", "embed"]]
    data["embedding"]["model"] = str(other)
    assert together(groups(tmp_path, data)) == [["score.complexity", "score.quality"]]


def a_model(folder, content):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content)
    return folder


def an_adapter(folder, base, content):
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_text(content)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def test_embeddings_alone_are_not_grouped(tmp_path):
    """Two cells that embed with one model, whose scores are there."""
    made = plan(tmp_path, recipe(**BOTH, sweep={"embedding.max_length": [256, 512]}))
    assert together(in_labels(made.nodes, ["embed"])) == []


def test_a_sweep_of_embeddings_joins_no_group_whose_readers_come_before(tmp_path):
    made = plan(tmp_path, recipe(**BOTH, sweep={"embedding.max_length": [256, 512]}))
    found = [[(node.label, made.cell_name(node)) for node in group] for group in in_groups(made.nodes, ids(made))]
    assert together(found) == [[("score.complexity", ""), ("score.quality", ""), ("embed", "")]]


@pytest.mark.parametrize("seed", range(5))
def test_parents_always_come_before_children(tmp_path, seed):
    sweep = {"embedding.max_length": [256, 512], "scorers.quality.max_length": [128, 256], "select.seed": [1, 2]}
    made = plan(tmp_path, recipe(**BOTH, sweep=sweep))
    chosen = random.Random(seed)
    missing = {artefact for artefact in ids(made) if chosen.random() < 0.7}
    found = in_groups(made.nodes, missing)
    order = [node.id for group in found for node in group]
    assert sorted(order) == sorted(node.id for node in made.nodes)
    for number, group in enumerate(found):
        before = {node.id for earlier in found[:number] for node in earlier}
        assert all(ancestor.id in before for node in group for ancestor in node.ancestors())
        assert len(group) == 1 or all(node.id in missing and shares_a_process(node) for node in group)


def ids(made):
    return {node.id for node in made.nodes}

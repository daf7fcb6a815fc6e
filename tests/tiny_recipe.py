"""A recipe with every section, as plain data, and what the tests of the run do with it. It carries nothing out."""

import json
from dataclasses import fields

import pytest

from deita_train.commands.validation import validate_data
from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.plan.graph import build_graph
from deita_train.plan.inputs import Inputs
from deita_train.plan.plan import make_plan
from deita_train.recipe.schema import Recipe
from deita_train.store.artefacts import Manifest

_TRAINER = {"learning_rate": 0.001, "num_train_epochs": 1}
_SCORER = {
    "train": {
        "data": {"builtin": "quickstart", "rows": 40},
        "heldout": {"builtin": "quickstart", "rows": 20},
        "model": "base",
        "global_batch_size": 8,
        "trainer": _TRAINER,
    }
}
_RECIPE = {
    "name": "tiny",
    "seed": 7,
    "base": {
        "builtin": "miniature",
        "pretrain": {
            "data": {"builtin": "quickstart_pretraining", "rows": 50},
            "global_batch_size": 8,
            "trainer": _TRAINER,
        },
    },
    "pool": {"builtin": "quickstart", "rows": 60},
    "scorers": {"complexity": _SCORER, "quality": _SCORER},
    "embedding": {"model": "base"},
    "select": {"method": "deita", "budget": 10},
    "sft": {"model": "base", "global_batch_size": 8, "trainer": _TRAINER},
    "evaluate": {"heldout": {"builtin": "quickstart_heldout", "rows": 16}},
}
_DPO = {
    "preferences": {"builtin": "quickstart_preferences", "rows": 30},
    "global_batch_size": 8,
    "trainer": _TRAINER,
}
LABELS = [
    "pretraining_data",
    "base",
    "pool",
    "train_scorer.complexity",
    "score.complexity",
    "train_scorer.quality",
    "score.quality",
    "embed",
    "select",
    "sft",
    "heldout_data",
    "evaluate.base",
    "evaluate.sft",
]
# What a recipe with DPO and held-out pairs has besides.
DPO_LABELS = [
    "dpo_data",
    "reference",
    "dpo",
    "evaluate.dpo",
    "heldout_pairs",
    "evaluate_pairs.base",
    "evaluate_pairs.sft",
    "evaluate_pairs.dpo",
]


@pytest.fixture
def no_gpus(monkeypatch):
    """The same launches on every machine."""
    monkeypatch.setattr(launch, "count_gpus", lambda: 0)
    launch.resolve_launch.cache_clear()
    yield
    launch.resolve_launch.cache_clear()


def recipe(*without, **changes):
    """The recipe without some sections, with `section__key=value` set; a value None removes the key."""
    # Through JSON and not deepcopy, which would keep sections that are one object one object.
    data = json.loads(json.dumps({name: section for name, section in _RECIPE.items() if name not in without}))
    for path, value in changes.items():
        put(data, path.split("__"), value)
    return data


def dpo_recipe(*without, **changes):
    """The recipe with DPO after SFT, and held-out pairs."""
    pairs = {"builtin": "quickstart_heldout_preferences", "rows": 12}
    return recipe(*without, **({"dpo": json.loads(json.dumps(_DPO)), "evaluate__preferences": pairs} | changes))


def put(data, path, value):
    *folders, name = path
    for folder in folders:
        data = data.setdefault(folder, {})
    if value is None:
        data.pop(name, None)
    else:
        data[name] = value


def graph(folder, data):
    """The recipe's stages by label."""
    return build_graph(Recipe.model_validate(data), Inputs(folder / "store", folder / data["name"], folder / "r.yaml"))


def write(folder, data):
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(data, indent=1))
    return path


def plan(folder, data, *sets, until=None):
    return make_plan(write(folder, data), sets, folder / "runs", until)


def a_manifest(node, **changes):
    """A manifest whose content is named by the node's own id, and its parents' contents by theirs."""
    values = {field.name: None for field in fields(Manifest)} | {
        "id": node.id,
        "kind": node.kind,
        "content_digest": node.id,
        "parents": {name: parent.id for name, parent in node.decisive.items()},
        "parent_digests": {name: parent.id for name, parent in node.decisive.items()},
        "counts_as": {name: key for name, key in node.parent_keys.items() if key != node.parents[name].key},
        "wall_seconds": 1.0,
    }
    return Manifest(**(values | changes))


def data_lines(made):
    """What `validate` says of a plan's data, without its lines on the rows it tried; its problems are raised."""
    found = validate_data(made)
    if found.problems:
        raise UserError("\n".join(found.problems))
    return [line for line in found.lines if " rows tried" not in line]

"""Every default is part of a stage's identity and of the resolved recipe; unchanged ones leave old keys as they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_recipe import dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

import deita_train
from deita_train.plan import identity, inputs
from deita_train.plan.identity import hashed, resolved_recipe, with_implied
from deita_train.plan.plan import make_plan
from deita_train.plan.sections import embedding, perplexity, scorers
from deita_train.recipe.peft_fields import peft_fields
from deita_train.recipe.trainer_fields import trainer_fields
from deita_train.stages.kinds import STAGE_KINDS

pytestmark = pytest.mark.usefixtures("no_gpus")
RECIPES = Path(deita_train.__file__).parent.parent / "recipes"
# Recorded before the defaults became part of the identity. `recipes` has the first three cells of each.
RECORDED = json.loads((Path(__file__).parent / "recorded_keys.json").read_text())
LABELS = {"base": "base", "train_scorer": "train_scorer.quality", "sft": "sft", "dpo": "dpo"}
TRAINER = [
    (kind, path.removeprefix("trainer."))
    for kind in LABELS
    for path in STAGE_KINDS[kind].implied
    if path.startswith("trainer.")
]
PEFT = [path.removeprefix("peft.") for path in STAGE_KINDS["sft"].implied if path.startswith("peft.")]


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "0123456789abcdef0123456789abcdef01234567")


def keys_of(file, folder, *sets):
    gpus = 8 if file.startswith(("deita/", "budget")) else 0
    made = make_plan(RECIPES / file, sets, folder, planned_gpus=gpus)
    return [{label: node.key for label, node in cell.nodes.items()} for cell in made.cells]


def check_keys(recorded, file, folder, *sets):
    """The keys of the first cells are those recorded; what is embedded along the walk alone has one of its own."""
    all_rows = ["embedding.rows=all"] if "embed" in recorded[0] else []
    assert keys_of(file, folder, *sets, *all_rows)[: len(recorded)] == recorded
    default = keys_of(file, folder, *sets)[: len(recorded)]
    assert [without_embedding(cell) for cell in default] == [without_embedding(cell) for cell in recorded]
    return [cell["embed"] for cell in default if "embed" in cell]


def without_embedding(keys):
    return {label: key for label, key in keys.items() if label != "embed"}


@pytest.mark.parametrize("file", RECORDED["recipes"])
def test_the_keys_of_shipped_recipes_are_those_recorded(tmp_path, file, no_hub):
    assert check_keys(RECORDED["recipes"][file], file, tmp_path) == RECORDED["embedded_by_default"][file]


@pytest.mark.parametrize("case", RECORDED["variants"], ids=lambda case: ",".join(case["sets"]))
def test_the_keys_of_their_variants_are_those_recorded(tmp_path, case, no_hub):
    check_keys([case["keys"]], case["recipe"], tmp_path, *case["sets"])


@pytest.mark.parametrize(("kind", "name"), TRAINER)
def test_a_default_of_a_trainer_is_part_of_the_identity_and_a_changed_one_of_the_key(
    tmp_path,
    kind,
    name,
    monkeypatch,
):
    data = dpo_recipe()
    scorers = (scorer["train"] for scorer in data["scorers"].values())
    for section in (data["base"]["pretrain"], *scorers, data["sft"], data["dpo"]):
        section["trainer"] = {"per_device_train_batch_size": 1}
    before = graph(tmp_path, data)[LABELS[kind]]
    assert before.identity["trainer"][name] == STAGE_KINDS[kind].implied[f"trainer.{name}"]
    assert before.hashed["trainer"] == {}
    library = {of: {**trainer_fields(of)} for of in ("sft", "dpo")}
    for fields in library.values():
        if name in fields:
            fields[name] = replace(fields[name], default="changed")
    own = {
        section: (of, {field: "changed" if field == name else value for field, value in defaults.items()})
        for section, (of, defaults) in identity._TRAININGS.items()
    }
    monkeypatch.setattr(identity, "trainer_fields", library.__getitem__)
    monkeypatch.setattr(identity, "_TRAININGS", own)
    after = graph(tmp_path, data)[LABELS[kind]]
    assert after.hashed["trainer"] == {name: "changed"}
    assert after.key != before.key


@pytest.mark.parametrize("name", PEFT)
def test_a_default_of_an_adapter_is_part_of_the_identity_and_a_changed_one_of_the_key(
    tmp_path,
    name,
    monkeypatch,
):
    data = recipe(sft__peft={})
    before = graph(tmp_path, data)["sft"]
    assert before.identity["peft"][name] == STAGE_KINDS["sft"].implied[f"peft.{name}"]
    changed = {**peft_fields(), name: replace(peft_fields()[name], default="changed")}
    monkeypatch.setattr(identity, "peft_fields", lambda: changed)
    after = graph(tmp_path, data)["sft"]
    assert (before.hashed["peft"], after.hashed["peft"]) == ({}, {name: "changed"})
    assert after.key != before.key


def test_the_length_to_which_passes_cut_is_part_of_the_identity(tmp_path, monkeypatch):
    def passes():
        nodes = graph(tmp_path, recipe(perplexity={"model": "base"}))
        return {label: nodes[label] for label in ("score.quality", "embed", "perplexity")}

    before = passes()
    for module in (scorers, embedding, perplexity):
        monkeypatch.setattr(module, "PASS_MAX_LENGTH", 1024)
    for label, node in passes().items():
        assert (before[label].identity["max_length_limit"], node.identity["max_length_limit"]) == (2048, 1024)
        assert node.key != before[label].key


def test_a_stated_default_counts_as_it_always_did(tmp_path):
    data = recipe(sft__trainer={"learning_rate": 2e-5, "save_steps": 3})
    stated, silent = graph(tmp_path, data)["sft"], graph(tmp_path, recipe(sft__trainer={}))["sft"]
    assert stated.hashed["trainer"] == {"learning_rate": 2e-5}
    assert stated.identity == silent.identity
    assert stated.key != silent.key


def test_sft_and_the_count_of_its_tokens_cut_at_one_length(tmp_path):
    for trainer, length in (({}, 2048), ({"max_length": 300}, 300), ({"max_length": None}, None)):
        nodes = graph(tmp_path, recipe(select__budget={"tokens": 500}, sft__trainer=trainer))
        assert nodes["sft"].identity["trainer"]["max_length"] == length == nodes["select"].identity["max_length"]


def test_the_resolved_recipe_has_every_default(tmp_path):
    data = dpo_recipe(
        sft__peft={"r": 4}, sft__merge_adapter=True, sft__trainer={"max_length": None, "save_steps": 3}, sft__seed=5
    )
    made = resolved_recipe(plan(tmp_path, data).loaded.recipe)
    sft = made["sft"]["trainer"]
    assert sft["max_length"] is None
    assert sft["save_steps"] == 3
    assert (sft["learning_rate"], sft["lr_scheduler_type"], sft["warmup_steps"]) == (2e-5, "cosine", 0)
    assert (sft["num_train_epochs"], sft["weight_decay"], sft["optim"]) == (3.0, 0.0, "adamw_torch_fused")
    assert (sft["adam_beta1"], sft["adam_beta2"], sft["adam_epsilon"], sft["max_grad_norm"]) == (0.9, 0.999, 1e-8, 1.0)
    assert made["sft"]["peft"]["r"] == 4
    assert (made["sft"]["peft"]["lora_alpha"], made["sft"]["peft"]["bias"]) == (8, "none")
    dpo = made["dpo"]["trainer"]
    assert (dpo["learning_rate"], dpo["beta"], dpo["loss_type"], dpo["max_length"]) == (0.001, 0.1, ["sigmoid"], 2048)
    assert dpo["lr_scheduler_type"] == "linear"
    for section in (made["base"]["pretrain"], made["scorers"]["quality"]["train"]):
        assert section["trainer"]["lr_scheduler_type"] == "cosine"
        assert "max_length" not in section["trainer"]  # it stands beside trainer:


def test_an_identity_from_before_a_field_existed_is_filled_with_what_it_implied():
    old = {"trainer": {"learning_rate": 1e-3}, "seed": 3, "model": {"hub": "a/b"}}
    whole = with_implied("sft", old)
    assert (whole["parity"], whole["loss"], whole["peft"], whole["seed"]) == (False, "per_token", None, 3)
    assert (whole["trainer"]["learning_rate"], whole["trainer"]["max_length"]) == (1e-3, 2048)
    assert whole["model"] == {"hub": "a/b", "trust_remote_code": False}
    assert hashed("sft", whole) == old


def test_every_implied_value_is_left_out_and_every_other_one_counts():
    for kind, row in STAGE_KINDS.items():
        for path, value in row.implied.items():
            head, _, name = path.partition(".")
            fields = {head: {name: value} if name else value}
            other = {head: {name: "another"} if name else "another"}
            assert hashed(kind, fields) == ({head: {}} if name else {})
            assert hashed(kind, fields, frozenset({path})) == fields
            assert hashed(kind, other) == other

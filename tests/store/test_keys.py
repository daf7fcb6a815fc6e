import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipe import LABELS, dpo_recipe, graph, no_gpus, plan, put, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.identity import PERFORMANCE_FIELDS
from deita_train.recipe.trainer_fields import trainer_fields
from deita_train.store import keys
from deita_train.store.keys import ContentHashes, canonical_json, content_key

pytestmark = pytest.mark.usefixtures("no_gpus")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_canonical_json_by_hand():
    assert canonical_json({"b": [1, None, True], "a": {"z": "é", "y": 0.5}}) == (
        '{"a":{"y":0.5,"z":"é"},"b":[1,null,true]}'
    )


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_the_order_of_entries_does_not_matter(value):
    turned = dict(reversed(list(value.items())))
    assert canonical_json(turned) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused(value):
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": value})


def test_a_key_by_hand():
    text = '{"config":{"rows":3},"kind":"pool","parents":{"x":"ab"},"version":2}'
    assert content_key("pool", 2, {"rows": 3}, {"x": "ab"}) == hashlib.sha256(text.encode()).hexdigest()


def test_each_part_decides_a_key():
    parts = ("pool", 1, {"rows": 3}, {"x": "ab"})
    others = [
        ("sft", *parts[1:]),
        ("pool", 2, *parts[2:]),
        (*parts[:2], {"rows": 4}, parts[3]),
        (*parts[:3], {"y": "ab"}),
    ]
    assert len({content_key(*variant) for variant in [parts, *others]}) == 5


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_hashed_by_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").write_bytes(b"text")
    hashes = ContentHashes(tmp_path / "memory.json")
    assert hashes.of(tmp_path / "a") == hashes.of(tmp_path / "b") == digest(b"text")


def test_a_folder_is_hashed_by_relative_paths_and_contents(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "x").write_bytes(b"1")
        (tmp_path / folder / "y").write_bytes(b"2")
    hashes = ContentHashes(tmp_path / "memory.json")
    listing = f'{{"sub/x":"{digest(b"1")}","y":"{digest(b"2")}"}}'
    assert hashes.of(tmp_path / "one") == hashes.of(tmp_path / "two") == digest(listing.encode())
    (tmp_path / "two" / "y").rename(tmp_path / "two" / "z")
    assert hashes.of(tmp_path / "two") != hashes.of(tmp_path / "one")


def test_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    file, memory = tmp_path / "a", tmp_path / "new" / "memory.json"
    file.write_bytes(b"old")
    first = ContentHashes(memory)
    assert first.of(file) == digest(b"old")
    first.save()
    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(keys.hashlib, "file_digest", lambda *given: reads.append(1) or real(*given))
    assert ContentHashes(memory).of(file) == digest(b"old")
    assert reads == []
    file.write_bytes(b"new")  # of the same size
    os.utime(file, ns=(1, 1))
    assert ContentHashes(memory).of(file) == digest(b"new")
    assert reads == [1]


def test_a_damaged_memory_only_costs_the_hashing(tmp_path):
    (tmp_path / "memory.json").write_text('{"a": [1,')
    (tmp_path / "a").write_bytes(b"text")
    assert ContentHashes(tmp_path / "memory.json").of(tmp_path / "a") == digest(b"text")


def test_a_file_that_cannot_be_read_is_the_users(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        ContentHashes(tmp_path / "memory.json").of(tmp_path / "none")


SELECTED = {"select", "sft", "evaluate.sft"}
# Which rows are embedded follows from all that decides the walk.
WALKED = {"embed"} | SELECTED
TUNED = {"sft", "evaluate.sft"}
# A changed setting and the stages that must be made anew: those that read it and their descendants, by hand.
DECISIVE = [
    ("base.pretrain.trainer.learning_rate", 0.002, set(LABELS) - {"pretraining_data", "pool", "heldout_data"}),
    ("base.architecture.hidden_size", 32, set(LABELS) - {"pretraining_data", "pool", "heldout_data"}),
    ("pool.rows", 61, {"pool", "score.complexity", "score.quality", "embed"} | SELECTED),
    ("scorers.quality.train.trainer.num_train_epochs", 2, {"train_scorer.quality", "score.quality"} | WALKED),
    ("scorers.quality.train.heldout.rows", 21, {"train_scorer.quality", "score.quality"} | WALKED),
    ("scorers.quality.train.seed", 1, {"train_scorer.quality", "score.quality"} | WALKED),
    ("scorers.quality.max_length", 512, {"score.quality"} | WALKED),
    ("scorers.complexity.dtype", "bfloat16", {"score.complexity"} | WALKED),
    ("embedding.max_length", 512, {"embed"} | SELECTED),
    ("embedding.center", True, WALKED),
    ("select.threshold", 0.8, WALKED),
    ("select.budget", 11, WALKED),
    ("select.score", "quality", WALKED),
    ("sft.seed", 1, TUNED),
    ("sft.global_batch_size", 16, TUNED),
    ("sft.trainer.max_length", 512, TUNED),
    ("evaluate.max_length", 512, {"evaluate.base", "evaluate.sft"}),
    ("evaluate.heldout.rows", 17, {"heldout_data", "evaluate.base", "evaluate.sft"}),
    ("seed", 8, set(LABELS)),
]
INDIFFERENT = [
    ("name", "renamed"),
    ("description", "something else"),
    ("select.seed", 3),
    ("sft.trainer.save_steps", 3),
    ("sft.trainer.per_device_train_batch_size", 2),
    ("sft.trainer.gradient_checkpointing", True),
    ("sft.packing", True),
    ("sft.checkpoint_minutes", 5),
    ("sft.launch", "cpu_ddp"),
    ("base.pretrain.launch", "cpu_ddp"),
    ("scorers.quality.train.launch", "cpu_zero2"),
    ("scorers.quality.launch", "cpu_ddp"),
    ("scorers.quality.max_batch_tokens", 99),
    ("scorers.quality.max_unscored_share", 0.5),
    ("scorers.quality.reuse_rows", False),
    ("embedding.launch", "cpu_ddp"),
    ("embedding.max_batch_tokens", 99),
    ("embedding.reuse_rows", False),
    ("evaluate.launch", "cpu_ddp"),
    ("evaluate.max_batch_tokens", 99),
    ("evaluate.dtype", "float32"),  # what auto means on a CPU
]


AFTER_DPO = {"dpo", "evaluate.dpo", "evaluate_pairs.dpo"}
AFTER_SFT = {"reference", "evaluate.sft", "evaluate_pairs.sft"} | AFTER_DPO
ON_PAIRS = {"evaluate_pairs.base", "evaluate_pairs.sft", "evaluate_pairs.dpo"}
# The same with DPO. What is measured of the pairs before DPO is made once for every beta, seed and learning rate.
DPO_DECISIVE = [
    ("dpo.trainer.beta", 0.2, AFTER_DPO),
    ("dpo.trainer.learning_rate", 1e-5, AFTER_DPO),
    ("dpo.global_batch_size", 16, AFTER_DPO),
    ("dpo.seed", 1, AFTER_DPO),
    ("dpo.peft", {"r": 8}, AFTER_DPO),
    ("dpo.trainer.max_length", 512, {"reference"} | AFTER_DPO),
    ("dpo.reference.dtype", "bfloat16", {"reference"} | AFTER_DPO),
    ("dpo.preferences.rows", 31, {"dpo_data", "reference"} | AFTER_DPO),
    ("sft.seed", 1, {"sft"} | AFTER_SFT),
    ("evaluate.preferences.rows", 13, {"heldout_pairs"} | ON_PAIRS),
    ("evaluate.max_length", 512, {"evaluate.base", "evaluate.sft", "evaluate.dpo"} | ON_PAIRS),
]
DPO_INDIFFERENT = [
    ("dpo.launch", "cpu_ddp"),
    ("dpo.trainer.save_steps", 3),
    ("dpo.trainer.gradient_checkpointing", True),
    ("dpo.reference.launch", "cpu_ddp"),
    ("dpo.reference.max_batch_tokens", 99),
    ("dpo.reference.dtype", "float32"),  # what auto means on a CPU
]


def changed(tmp_path, path, value, original=recipe):
    data = original()
    put(data, path.split("."), value)
    before, after = graph(tmp_path, original()), graph(tmp_path, data)
    assert list(before) == list(after)
    return {label for label in before if before[label].key != after[label].key}


@pytest.mark.parametrize(("path", "value", "stages"), DPO_DECISIVE)
def test_a_setting_of_dpo_changes_the_keys_of_its_descendants_only(tmp_path, path, value, stages):
    assert changed(tmp_path, path, value, dpo_recipe) == stages


def test_the_template_of_sft_is_that_of_dpo_of_its_reference_and_of_the_base_that_they_are_compared_with(tmp_path):
    (tmp_path / "own.jinja").write_text("{% generation %}{{ x }}{% endgeneration %}")
    stages = changed(tmp_path, "sft.chat_template", str(tmp_path / "own.jinja"), dpo_recipe)
    assert stages == {"sft", "evaluate.base", "evaluate_pairs.base"} | AFTER_SFT


@pytest.mark.parametrize(("path", "value"), DPO_INDIFFERENT)
def test_how_dpo_is_carried_out_changes_no_key(tmp_path, path, value):
    assert changed(tmp_path, path, value, dpo_recipe) == set()


def test_a_sample_of_the_pairs_depends_on_the_seed(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}")

    def key(**changes):
        preferences = {"dataset": str(tmp_path / "pairs.jsonl"), **changes}
        return graph(tmp_path, dpo_recipe(dpo__preferences=preferences))["dpo_data"].key

    assert key(sample=5) == key(sample=5, seed=7)
    assert len({key(), key(sample=5), key(sample=6), key(sample=5, seed=8)}) == 4


@pytest.mark.parametrize(("path", "value", "stages"), DECISIVE)
def test_a_decisive_setting_changes_the_keys_of_its_descendants_only(tmp_path, path, value, stages):
    assert changed(tmp_path, path, value) == stages


@pytest.mark.parametrize(("path", "value"), INDIFFERENT)
def test_what_only_changes_how_the_work_is_done_changes_no_key(tmp_path, path, value):
    assert changed(tmp_path, path, value) == set()


def test_performance_fields_exist():
    assert len(PERFORMANCE_FIELDS) > 10
    assert set(trainer_fields("sft")) >= PERFORMANCE_FIELDS


def test_settings_that_are_not_hashed_are_kept_for_the_stage(tmp_path):
    nodes = graph(
        tmp_path,
        recipe(sft__trainer__save_steps=3, sft__launch="cpu_ddp", embedding__max_batch_tokens=99),
    )
    assert nodes["sft"].runtime["trainer"] == {"save_steps": 3}
    assert nodes["sft"].hashed["trainer"] == {"learning_rate": 0.001, "num_train_epochs": 1}
    assert nodes["sft"].runtime["launch"]["num_processes"] == 2
    assert nodes["embed"].runtime["max_batch_tokens"] == 99


def file_pool(folder, content, name="rows.jsonl"):
    folder.mkdir()
    (folder / name).write_text(content)
    return {"dataset": str(folder / name)}


def test_a_local_files_content_decides_and_not_its_folder(tmp_path):
    pools = {
        "first": file_pool(tmp_path / "a", '{"x": 1}\n'),
        "moved": file_pool(tmp_path / "b", '{"x": 1}\n'),
        "edited": file_pool(tmp_path / "c", '{"x": 2}\n'),
        "renamed": file_pool(tmp_path / "d", '{"x": 1}\n', "others.jsonl"),
    }
    nodes = {name: graph(tmp_path, recipe(pool=pool))["pool"] for name, pool in pools.items()}
    assert nodes["first"].key == nodes["moved"].key
    assert nodes["first"].runtime != nodes["moved"].runtime
    # Row ids begin with the file's name.
    assert len({nodes[name].key for name in ("first", "edited", "renamed")}) == 3


def test_a_local_models_content_decides_and_not_its_folder(tmp_path):
    keys_of = {}
    for name, config in {"a": "{}", "b": "{}", "c": '{"x": 1}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
        keys_of[name] = graph(tmp_path, recipe(embedding__model=str(tmp_path / name)))["embed"].key
    assert keys_of["a"] == keys_of["b"] != keys_of["c"]


def test_a_templates_text_decides_and_not_its_path(tmp_path):
    paths = [tmp_path / name for name in ("a.jinja", "b.jinja", "c.jinja")]
    for path, text in zip(paths, ("{{ x }}", "{{ x }}", "{{ y }}"), strict=True):
        path.write_text(f"{{% generation %}}{text}{{% endgeneration %}}")
    a, b, c = (graph(tmp_path, recipe(sft__chat_template=str(path))) for path in paths)
    assert a["sft"].key == b["sft"].key != c["sft"].key
    assert a["evaluate.base"].key == b["evaluate.base"].key != c["evaluate.base"].key


def test_random_selection_depends_on_the_seed_and_nothing_that_it_does_not_read(tmp_path):
    def key(*without, **changes):
        return graph(tmp_path, recipe(*without, select__method="random", **changes))["select"].key

    assert key() == key(select__threshold=0.5) == key("scorers") == key("scorers", "embedding")
    assert key() == key(select__score="quality") == key(embedding__center=True)
    assert key() == key(select__seed=7) != key(select__seed=8)


def test_one_dimension_of_score_reads_one_scorer(tmp_path):
    node = graph(tmp_path, recipe(select__method="complexity"))["select"]
    assert set(node.parents) == {"pool", "complexity"}
    assert node.identity["score"] == "complexity"
    assert node.key == graph(tmp_path, recipe(select__method="complexity", select__score="quality"))["select"].key


def test_a_sweep_shares_what_lies_upstream(tmp_path):
    sweep = {"select.method": ["random", "longest_response"], "sft.seed": [1, 2]}
    made = plan(tmp_path, recipe(sweep=sweep))
    assert len(made.cells) == 5
    upstream = [label for label in LABELS if label not in SELECTED]
    # The methods of the sweep read no embeddings, so their cells have none.
    assert [cell.is_base for cell in made.cells if "embed" in cell.nodes] == [True]
    for label in set(upstream) - {"embed"}:
        assert len({cell.nodes[label].id for cell in made.cells}) == 1, label
    numbers = {label: len({cell.nodes[label].id for cell in made.cells}) for label in SELECTED}
    assert numbers == {"select": 3, "sft": 5, "evaluate.sft": 5}
    assert len(made.nodes) == len(upstream) + 3 + 5 + 5


def test_loss_and_parity_count_where_they_are_stated(tmp_path):
    def key(**changes):
        return graph(tmp_path, recipe(**changes))["sft"].key

    default = key()
    assert key(sft__loss="per_token") == key(sft__parity=False) == default
    per_conversation, parity = key(sft__loss="per_conversation"), key(sft__parity=True)
    assert len({default, per_conversation, parity}) == 3
    assert key(sft__loss="per_conversation", sft__parity=True) == parity
    assert not {"loss", "parity"} & set(graph(tmp_path, recipe())["sft"].hashed)


def test_parity_of_a_scorer_counts_where_it_is_stated(tmp_path):
    def keys(**changes):
        return {label: node.key for label, node in graph(tmp_path, recipe(**changes)).items()}

    default, parity = keys(), keys(scorers__quality__parity=True)
    assert keys(scorers__quality__parity=False) == default
    assert {label for label in default if default[label] != parity[label]} == {"score.quality"} | WALKED


def test_a_template_that_ends_a_turn_otherwise_than_the_model_counts_in_what_is_tuned(tmp_path):
    for name in ("vicuna_v1.1", "llama2", "mistral_instruct", "zephyr"):
        nodes = graph(tmp_path, dpo_recipe(sft__chat_template=name))
        assert not any("end_of_turn" in node.hashed for node in nodes.values())
    for name in ("chatml", "llama3"):
        nodes = graph(tmp_path, dpo_recipe(sft__chat_template=name))
        assert {label for label, node in nodes.items() if node.identity.get("end_of_turn")} == {"sft", "dpo"}

"""Which selections are the same walk to another budget; and a sweep over budgets in one pass, whatever their order."""

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from pass_stages import conversations, make_model
from tiny_recipe import a_manifest, graph, no_gpus, plan, recipe, write  # noqa: F401

from deita_train.errors import UserError
from deita_train.run.child.reusable_artefacts import find_reusable
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.kinds import STAGE_KINDS

pytestmark = pytest.mark.usefixtures("no_gpus")
TOKENS = {"tokens": 900}
ALL = {"embedding__rows": "all"}


def publish(node, store):
    """The manifest of a stage and of all that it reads."""
    for one in (*node.ancestors(), node):
        manifest = a_manifest(one, key=one.key, config=dict(one.identity))
        store.path(one.id).mkdir(parents=True, exist_ok=True)
        (store.path(one.id) / "manifest.json").write_text(json.dumps(asdict(manifest)))


def found(tmp_path, first, second):
    """Whether a selection published as `first` is reusable for `second`, what both read being published."""
    tmp_path.mkdir(exist_ok=True)
    made = {name: plan(tmp_path, recipe(**changes)) for name, changes in (("first", first), ("second", second))}
    publish(made["first"].cells[0].nodes["select"], made["first"].store)
    node = made["second"].cells[0].nodes["select"]
    for parent in node.parents.values():
        publish(parent, made["second"].store)
    names = [path.name for path in find_reusable(made["second"].store, node)]
    assert names in ([], [made["first"].cells[0].nodes["select"].id])
    return bool(names)


SAME = [
    ({"select__budget": 3}, {}),
    ({}, {"select__budget": 3}),
    ({"select__budget": {"share": 0.5}}, {"select__allow_fewer": True}),
    ({"select__budget": TOKENS}, {}),
    ({}, {"select__budget": TOKENS}),
    # The cut decides where a budget of tokens ends, and not the walk.
    ({"select__budget": TOKENS, "sft__trainer__max_length": 99}, {"select__budget": TOKENS}),
    ({"select__method": "k_center", "select__budget": 3}, {"select__method": "k_center"}),
]
ANOTHER = [
    ({"select__threshold": 0.8, "select__budget": 3}, {}),
    ({"select__score": "quality", "select__budget": 3}, {}),
    ({"embedding__center": True, "select__budget": 3}, {}),
    ({"embedding__max_length": 99, "select__budget": 3}, {}),
    ({"pool__rows": 61, "select__budget": 3}, {}),
    ({"select__score_turns": "mean", "select__budget": 3}, {}),
    ({"select__only_trained_turns": True, "select__budget": 3}, {}),
    (
        {"select__only_trained_turns": True, "sft__trainer__max_length": 99, "select__budget": 3},
        {"select__only_trained_turns": True},
    ),
    ({"select__method": "k_center", "select__budget": 3}, {}),
    # These are made anew in no time, and smaller budgets of kmeans are no prefix.
    ({"select__method": "random", "select__budget": 3}, {"select__method": "random"}),
    ({"select__method": "kmeans", "select__budget": 3}, {"select__method": "kmeans"}),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_another_budget_is_the_same_walk(tmp_path, first, second):
    assert found(tmp_path, first, second)


@pytest.mark.parametrize(("first", "second"), ANOTHER)
def test_another_order_or_another_filter_is_another_walk(tmp_path, first, second):
    assert not found(tmp_path, first, second)


def test_another_content_under_the_same_key_and_another_version_are_another_walk(tmp_path, monkeypatch):
    assert found(tmp_path, {"select__budget": 3, **ALL}, ALL)
    made = plan(tmp_path, recipe(**ALL))
    node = made.cells[0].nodes["select"]
    with monkeypatch.context() as patched:
        patched.setitem(STAGE_KINDS, "select", replace(STAGE_KINDS["select"], version=99))
        assert find_reusable(made.store, plan(tmp_path, recipe(**ALL)).cells[0].nodes["select"]) == ()
    assert len(find_reusable(made.store, node)) == 1
    embed = made.store.path(node.parents["embed"].id) / "manifest.json"
    embed.write_text(json.dumps({**json.loads(embed.read_text()), "content_digest": "another"}))
    assert find_reusable(made.store, node) == ()


def test_a_selection_made_anew_walks_from_the_start(tmp_path):
    assert found(tmp_path, {"select__budget": 3}, {})
    made = plan(tmp_path, recipe())
    publish(made.cells[0].nodes["select"], made.store)
    assert find_reusable(made.store, made.cells[0].nodes["select"]) == ()


def test_one_whose_parents_were_made_anew_goes_on_from_what_was_made_of_them_since(tmp_path):
    assert found(tmp_path, {"select__budget": 3, **ALL}, ALL)
    made = plan(tmp_path, recipe(**ALL))
    node, other = (
        made.cells[0].nodes["select"],
        plan(tmp_path, recipe(select__budget=3, **ALL)).cells[0].nodes["select"],
    )
    publish(node, made.store)
    embed = made.store.path(node.parents["embed"].id) / "manifest.json"
    embed.write_text(json.dumps({**json.loads(embed.read_text()), "content_digest": "another"}))
    assert find_reusable(made.store, node) == ()
    file = made.store.path(other.id) / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["parent_digests"]["embed"] = "another"
    file.write_text(json.dumps(manifest))
    assert [path.name for path in find_reusable(made.store, node)] == [other.id]


def test_of_embeddings_along_the_walk_the_selection_compares_the_vectors(tmp_path):
    """Another budget embeds other rows: whether those of both are the same, no digest says."""
    assert found(tmp_path, {"select__budget": 3}, {})
    made = plan(tmp_path, recipe())
    node, other = made.cells[0].nodes["select"], plan(tmp_path, recipe(select__budget=3)).cells[0].nodes["select"]
    assert node.parents["embed"].id != other.parents["embed"].id
    assert [path.name for path in find_reusable(made.store, node)] == [other.id]
    # What the other walked over must still be there to compare with.
    embed = made.store.path(other.parents["embed"].id) / "manifest.json"
    embed.write_text(json.dumps({**json.loads(embed.read_text()), "content_digest": "another"}))
    assert find_reusable(made.store, node) == ()


def test_a_walk_over_all_embeddings_goes_on_along_the_walk(tmp_path):
    assert found(tmp_path, {"select__budget": 3, **ALL}, {}) and found(tmp_path / "b", {"select__budget": 3}, ALL)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A recipe that selects from files made elsewhere, and a model whose tokenizer counts."""
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    make_model(tmp_path / "model")
    rng = np.random.default_rng(3)
    rows = conversations(40)
    turns = [len(row["messages"]) // 2 for row in rows]
    tables = {
        "pool": rows,
        **{
            name: [
                {"id": row["id"], f"{name}_scores": rng.uniform(1, 6, number).tolist()}
                for row, number in zip(rows, turns, strict=True)
            ]
            for name in ("complexity", "quality")
        },
        "vectors": [
            {"id": row["id"], "embedding": (np.eye(4)[index % 4] + 0.5 * rng.standard_normal(4)).tolist()}
            for index, row in enumerate(rows)
        ],
    }
    for name, table in tables.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    place = {name: str(tmp_path / f"{name}.jsonl") for name in tables}
    return recipe(
        "base", "scorers", "embedding", "sft", "evaluate", pool={"dataset": place["pool"]},
        scores={"complexity": place["complexity"], "quality": place["quality"]},
        embeddings={"file": place["vectors"]}, select__read_as={"tokenizer": str(tmp_path / "model")},
        select__budget=TOKENS,
    )  # fmt: skip


def test_a_sweep_over_budgets_is_one_walk_in_any_order(tmp_path, given):
    budgets = [3, {"share": 0.2}, {"tokens": 1500}, 14]
    digests = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 1, 0, 2])):
        folder = tmp_path / f"runs-{number}"
        folder.mkdir()
        data = {**given, "sweep": {"select.budget": [budgets[place] for place in order]}}
        made = plan(folder, data)
        for node in made.nodes:
            run_stage(write(folder, data), [], folder / "runs", node.id)
        metrics = [made.store.metrics(cell.nodes["select"].id) for cell in made.cells]
        digests.append({cell.label: made.store.manifest(cell.nodes["select"].id).content_digest for cell in made.cells})
        seen, names = metrics[0]["seen"], [made.cells[0].nodes["select"].id]
        for cell, found_there in list(zip(made.cells, metrics, strict=True))[1:]:
            assert found_there["walk_reused_from"] in names
            assert found_there["walk_rows_reused"] == min(seen, found_there["seen"])
            seen = max(seen, found_there["seen"])
            names.append(cell.nodes["select"].id)
        assert [cell.label for cell in made.cells[1:]] == [
            ["budget 3", "budget 20%", "budget 1500 tokens", "budget 14"][place] for place in order
        ]
    assert digests[0] == digests[1] and len(set(digests[0].values())) == 5
    alone = tmp_path / "alone"
    alone.mkdir()
    data = {**given, "select": {**given["select"], "budget": 14, "read_as": None}}
    made = plan(alone, data)
    assert "lengths" not in made.cells[0].nodes
    for node in made.nodes:
        run_stage(write(alone, data), [], alone / "runs", node.id)
    assert made.store.manifest(made.cells[0].nodes["select"].id).content_digest == digests[0]["budget 14"]


def test_the_lengths_are_decided_by_tokenizer_and_template_alone(tmp_path):
    def key(**changes):
        return graph(tmp_path, recipe(select__budget=TOKENS, **changes))["lengths"].key

    assert key() == key(sft__trainer__max_length=99) == key(select__method="random") == key(sft__seed=3)
    (tmp_path / "own.jinja").write_text("{% generation %}{{ x }}{% endgeneration %}")
    others = {"sft__chat_template": str(tmp_path / "own.jinja")}, {"base__architecture__hidden_size": 32}
    assert len({key(), *(key(**changes) for changes in others)}) == 3


def test_an_sft_on_rows_of_its_own_says_nothing_of_the_pools(tmp_path):
    own = {"select__budget": TOKENS, "sft__data": {"builtin": "quickstart", "rows": 9}}
    with pytest.raises(UserError, match="no sft: of the recipe reads these rows"):
        graph(tmp_path, recipe(**own))
    nodes = graph(tmp_path, recipe(**own, select__read_as={"tokenizer": "base", "max_length": 64}))
    assert nodes["select"].identity["max_length"] == 64 and nodes["lengths"].parents["model"].label == "base"


def test_the_configuration_of_tokens_and_of_turns(tmp_path):
    def config(**changes):
        node = graph(tmp_path, recipe(**{f"select__{name}": value for name, value in changes.items()}))["select"]
        return node.hashed, "lengths" in node.parents

    plain = {"method": "deita", "budget": 10, "score": "evol", "threshold": 0.9, "center": False}
    assert config() == config(score_turns="sum", only_trained_turns=False) == (plain, False)
    assert config(score_turns="mean") == ({**plain, "score_turns": "mean"}, False)
    assert config(only_trained_turns=True) == ({**plain, "only_trained_turns": True, "max_length": 2048}, True)
    assert config(budget=TOKENS) == ({**plain, "budget": TOKENS, "max_length": 2048}, True)
    assert config(budget={"share": 0.5}) == ({**plain, "budget": {"share": 0.5}}, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"select__budget": TOKENS, "sft": None},
            "select.budget: counts tokens as SFT reads them, and no sft: of the recipe reads these rows. Add sft:, "
            "or select.read_as: {tokenizer: MODEL}, with chat_template: and max_length: where they are not "
            "the model's own (else vicuna_v1.1) and 2048.",
        ),
        (
            {"select__only_trained_turns": True, "sft": None},
            "select.only_trained_turns: counts tokens as SFT reads them, and no sft: of the recipe reads these rows. "
            "Add sft:, or select.read_as: {tokenizer: MODEL}, with chat_template: and max_length: where they are not "
            "the model's own (else vicuna_v1.1) and 2048.",
        ),
        (
            {"select__budget": TOKENS, "select__read_as": {"tokenizer": "base"}},
            "select.read_as: sft: says how the rows are read; leave one of the two out.",
        ),
        (
            {"select__read_as": {"tokenizer": "base"}},
            "select.read_as: would have no effect with method deita; leave it out.",
        ),
        (
            {"select__method": "random", "select__score_turns": "mean"},
            "select.score_turns: would have no effect with method random; leave it out.",
        ),
        (
            {"select__method": "random", "select__only_trained_turns": True},
            "select.only_trained_turns: would have no effect with method random; leave it out.",
        ),
    ],
)
def test_what_is_missing_or_without_effect_is_reported(tmp_path, changes, message):
    data = recipe("evaluate", **changes) if "sft" in changes else recipe(**changes)
    with pytest.raises(UserError) as caught:
        plan(tmp_path, data)
    # The line is that of the field, where the recipe has it.
    assert re.sub(r"(recipe\.yaml):\d+:", r"\1:", str(caught.value)) == f"{tmp_path / 'recipe.yaml'}: {message}"


def test_kmeans_takes_no_tokens(tmp_path):
    with pytest.raises(UserError, match="kmeans takes no budget of tokens: what it keeps first follows from"):
        plan(tmp_path, recipe(select__method="kmeans", select__budget=TOKENS))


def test_read_as_serves_the_cells_that_count_tokens(tmp_path):
    data = recipe(
        "sft", "evaluate", select__read_as={"tokenizer": "base", "max_length": 99}, sweep={"select.budget": [3, TOKENS]}
    )
    made = plan(tmp_path, data)
    assert {cell.label: cell.nodes["select"].identity.get("max_length") for cell in made.cells} == {
        "base run": None, "budget 3": None, "budget 900 tokens": 99,
    }  # fmt: skip

from importlib.util import find_spec

import pytest
from tiny_recipe import DPO_LABELS, LABELS, dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.node import stages_until
from deita_train.stages.kinds import STAGE_KINDS

pytestmark = pytest.mark.usefixtures("no_gpus")

# What each stage reads, by hand: name of the parent -> label.
EDGES = {
    "pretraining_data": {},
    "base": {"data": "pretraining_data"},
    "pool": {},
    "train_scorer.complexity": {"model": "base"},
    "score.complexity": {"pool": "pool", "model": "train_scorer.complexity"},
    "train_scorer.quality": {"model": "base"},
    "score.quality": {"pool": "pool", "model": "train_scorer.quality"},
    # It goes along the walk of the selection, and so reads what that is ranked by.
    "embed": {"pool": "pool", "model": "base", "complexity": "score.complexity", "quality": "score.quality"},
    "select": {
        "pool": "pool",
        "complexity": "score.complexity",
        "quality": "score.quality",
        "embed": "embed",
    },
    "sft": {"data": "select", "model": "base"},
    "heldout_data": {},
    "evaluate.base": {"data": "heldout_data", "model": "base"},
    "evaluate.sft": {"data": "heldout_data", "model": "sft", "before": "evaluate.base"},
}


# The same for DPO: the reference is the model that DPO starts from, and each evaluation knows the one before it.
DPO_EDGES = {
    "dpo_data": {},
    "reference": {"data": "dpo_data", "model": "sft"},
    "dpo": {"data": "dpo_data", "reference": "reference", "model": "sft"},
    "evaluate.dpo": {"data": "heldout_data", "model": "dpo", "before": "evaluate.sft"},
    "heldout_pairs": {},
    "evaluate_pairs.base": {"data": "heldout_pairs", "model": "base"},
    "evaluate_pairs.sft": {"data": "heldout_pairs", "model": "sft", "before": "evaluate_pairs.base"},
    "evaluate_pairs.dpo": {"data": "heldout_pairs", "model": "dpo", "before": "evaluate_pairs.sft"},
}


def edges(nodes):
    return {label: {name: parent.label for name, parent in node.parents.items()} for label, node in nodes.items()}


def test_each_stage_reads_what_it_should(tmp_path):
    nodes = graph(tmp_path, recipe())
    assert list(nodes) == LABELS
    assert edges(nodes) == EDGES


def test_dpo_follows_sft_and_leaves_the_rest_as_it_is(tmp_path):
    nodes = graph(tmp_path, dpo_recipe())
    assert set(nodes) == {*LABELS, *DPO_LABELS}
    assert edges(nodes) == EDGES | DPO_EDGES
    kinds = {label: nodes[label].kind for label in DPO_LABELS}
    assert kinds == {
        "dpo_data": "preferences",
        "reference": "log_probs",
        "dpo": "dpo",
        "evaluate.dpo": "evaluate",
        "heldout_pairs": "preferences",
        "evaluate_pairs.base": "log_probs",
        "evaluate_pairs.sft": "log_probs",
        "evaluate_pairs.dpo": "log_probs",
    }
    without = graph(tmp_path, recipe())
    assert {label: nodes[label].key for label in LABELS} == {label: without[label].key for label in LABELS}


def test_later_options_of_the_embedding_leave_the_default_key_be(tmp_path):
    embedding = graph(tmp_path, recipe(embedding__rows="all"))["embed"]
    assert set(embedding.hashed) == {"chat_template", "max_length", "dtype"}
    options = {"embedding__pooling": "last_token", "embedding__storage": "float32", "embedding__rows": "all"}
    assert graph(tmp_path, recipe(**options))["embed"].key == embedding.key
    for name, value in {"pooling": "mean", "storage": "float16"}.items():
        other = graph(tmp_path, recipe(**{f"embedding__{name}": value, "embedding__rows": "all"}))["embed"]
        assert other.identity == {**embedding.identity, name: value} and other.key != embedding.key


def test_a_sentence_transformer_is_an_encoder_of_its_own(tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    data = recipe(embedding={"sentence_transformer": str(folder), "rows": "all"})
    node = graph(tmp_path, data)["embed"]
    assert (node.kind, list(node.decisive), node.runtime["model"]) == ("sentence_embed", ["pool"], str(folder))
    assert set(node.hashed) == {"model", "max_length", "dtype"}
    assert graph(tmp_path, data)["select"].parents["embed"] is not None
    with pytest.raises(UserError, match=r"r.yaml: embedding.sentence_transformer: no/such folder is neither"):
        graph(tmp_path, recipe(embedding={"sentence_transformer": "no/such folder"}))


def test_perplexity_measures_the_pool_and_serves_the_methods_of_its_columns(tmp_path):
    measured = {"perplexity": {"model": "base", "max_length": 300}}
    nodes = graph(tmp_path, recipe(**measured))
    plain = graph(tmp_path, recipe())
    assert edges(nodes) == EDGES | {"perplexity": {"pool": "pool", "model": "base"}}
    assert {label: nodes[label].key for label in LABELS} == {label: plain[label].key for label in LABELS}
    assert set(nodes["perplexity"].hashed) == {"chat_template", "max_length", "dtype"}
    for method in ("perplexity", "ifd"):
        select = graph(tmp_path, recipe(**measured, select__method=method))["select"]
        assert {name: parent.label for name, parent in select.parents.items()} == {
            "pool": "pool",
            "perplexity": "perplexity",
        }
        assert select.identity["column"] == method
        own = graph(tmp_path, recipe(**measured, select__method=method, select__column="mine"))["select"]
        assert (list(own.parents), own.identity["column"]) == (["pool"], "mine")
        with pytest.raises(
            UserError, match=f"select.column: method {method} needs perplexity:, which measures it, or select.column: "
        ):
            graph(tmp_path, recipe(select__method=method))


def test_perplexity_wants_a_pool(tmp_path):
    data = recipe("pool", "scorers", "embedding", "select", "sft", "evaluate", perplexity={"model": "base"})
    with pytest.raises(UserError, match="perplexity: needs pool:"):
        graph(tmp_path, data)


def test_dpo_and_its_reference_cut_alike(tmp_path):
    nodes = graph(tmp_path, dpo_recipe(dpo__trainer__max_length=512))
    for name in ("max_length", "chat_template"):
        assert nodes["reference"].identity[name] == nodes["dpo"].identity[name]
    assert nodes["reference"].identity["max_length"] == 512
    assert graph(tmp_path, dpo_recipe())["reference"].identity["max_length"] == 2048


def test_parity_of_dpo_writes_the_pairs_of_the_training_and_its_reference_alone(tmp_path):
    before, after = graph(tmp_path, dpo_recipe()), graph(tmp_path, dpo_recipe(dpo__parity=True))
    assert {label for label in before if before[label].key != after[label].key} == {
        "reference", "dpo", "evaluate.dpo", "evaluate_pairs.dpo",
    }  # fmt: skip
    lower, upper = after["reference"].identity["chat_template"], after["sft"].identity["chat_template"]
    assert "'user: '" in lower and "USER" not in lower and "'USER: '" in upper
    assert (after["dpo"].identity["pairs_template"], after["dpo"].identity["chat_template"]) == (lower, upper)
    measured = [node for label, node in after.items() if label.startswith("evaluate")]
    assert {node.identity["chat_template"] for node in measured} == {upper}
    off = graph(tmp_path, dpo_recipe(dpo__parity=False))
    assert {label: node.key for label, node in off.items()} == {label: node.key for label, node in before.items()}


@pytest.mark.parametrize("name", ["zephyr", "llama2"])
def test_parity_of_dpo_wants_the_template_that_it_varies(tmp_path, name):
    with pytest.raises(
        UserError, match=r"dpo\.parity: .* Train with chat_template: vicuna_v1\.1, or leave parity: out"
    ):
        graph(tmp_path, dpo_recipe(sft__chat_template=name, dpo__parity=True))


def test_dpo_of_a_given_model_needs_no_sft(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    data = dpo_recipe("pool", "scorers", "embedding", "select", "sft", dpo__model=str(tmp_path / "model"))
    nodes = graph(tmp_path, data)
    assert nodes["reference"].identity["model"] == nodes["dpo"].identity["model"]
    assert edges(nodes) == {
        "pretraining_data": {},
        "base": {"data": "pretraining_data"},
        "dpo_data": {},
        "reference": {"data": "dpo_data"},
        "dpo": {"data": "dpo_data", "reference": "reference"},
        "heldout_data": {},
        "evaluate.base": {"data": "heldout_data"},
        "evaluate.dpo": {"data": "heldout_data", "model": "dpo", "before": "evaluate.base"},
        "heldout_pairs": {},
        "evaluate_pairs.base": {"data": "heldout_pairs"},
        "evaluate_pairs.dpo": {"data": "heldout_pairs", "model": "dpo", "before": "evaluate_pairs.base"},
    }
    assert nodes["evaluate.base"].identity["model"] == nodes["dpo"].identity["model"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dpo_recipe("sft"), "dpo: needs sft: (or dpo.model), and the recipe has none. Add it, or leave dpo: out."),
        (
            dpo_recipe(dpo__model="base"),
            "dpo.model: DPO starts from the model of sft:; leave one of the two out.",
        ),
        (
            dpo_recipe(dpo__chat_template="vicuna_v1.1"),
            "dpo.chat_template: would have no effect beside sft:; leave chat_template: out.",
        ),
        (
            dpo_recipe(sft__peft={"r": 8}),
            "sft.peft: sft leaves an adapter, and DPO starts from a whole model. State sft.merge_adapter: true.",
        ),
    ],
)
def test_dpo_without_one_model_to_start_from_is_refused(tmp_path, data, message):
    with pytest.raises(UserError) as caught:
        graph(tmp_path, data)
    assert str(caught.value) == f"{tmp_path / 'r.yaml'}: {message}"


def test_cells_that_differ_in_dpo_alone_share_its_reference(tmp_path):
    made = plan(tmp_path, dpo_recipe(sweep={"dpo.trainer.beta": [0.01, 0.1], "dpo.seed": [1, 2]}))
    assert [cell.label for cell in made.cells[1:]] == [
        f"beta {beta}, seed {seed}" for beta in (0.01, 0.1) for seed in (1, 2)
    ]
    assert len({cell.nodes["reference"].id for cell in made.cells}) == 1
    assert len({cell.nodes["dpo"].id for cell in made.cells}) == 5


def test_parents_come_before_children(tmp_path):
    made = plan(tmp_path, recipe(sweep={"sft.seed": [1, 2], "base.pretrain.max_length": [256]}))
    seen = set()
    for node in made.nodes:
        assert all(parent.key in seen for parent in node.parents.values()), node.label
        seen.add(node.key)
    assert len(seen) == len(made.nodes) > len(LABELS)


def test_ancestors_are_all_that_is_read(tmp_path):
    nodes = graph(tmp_path, recipe())
    trained = {"pretraining_data", "base", "train_scorer.quality"}
    assert {node.label for node in nodes["score.quality"].ancestors()} == {"pool", *trained}
    order = [node.label for node in nodes["score.quality"].ancestors()]
    assert order.index("pretraining_data") < order.index("base")
    assert {node.label for node in nodes["evaluate.sft"].ancestors()} == set(LABELS) - {"evaluate.sft"}


def test_every_kind_has_a_version_and_a_module():
    assert len(STAGE_KINDS) == 28
    for kind in STAGE_KINDS.values():
        assert kind.version >= 1
        assert find_spec(kind.module) is not None
        assert all(find_spec(module) is not None for module in kind.validations)


def test_ids_are_the_kind_and_twelve_digits_of_the_key(tmp_path):
    node = graph(tmp_path, recipe())["train_scorer.quality"]
    assert node.id == f"train_scorer-{node.key[:12]}"
    assert len(node.key) == 64


def test_evaluation_of_the_untuned_model_is_shared_by_cells(tmp_path):
    made = plan(tmp_path, recipe(sweep={"sft.seed": [1, 2], "select.budget": [5, 6]}))
    assert len(made.cells) == 5
    assert len({cell.nodes["evaluate.base"].id for cell in made.cells}) == 1
    assert len({cell.nodes["evaluate.sft"].id for cell in made.cells}) == 5


def test_generated_heldout_rows_do_not_repeat_the_training_rows(tmp_path):
    config = graph(tmp_path, recipe())["train_scorer.quality"].identity
    assert (config["data"]["seed"], config["heldout"]["seed"]) == (7, 8)


@pytest.mark.parametrize(("stated", "samples"), [(None, 3), (0, 0), (7, 7)])
def test_some_heldout_prompts_are_answered_unless_the_recipe_says_how_many(tmp_path, stated, samples):
    nodes = graph(tmp_path, dpo_recipe(evaluate__samples=stated))
    for name in ("base", "sft", "dpo"):
        identity = nodes[f"evaluate.{name}"].identity
        assert (identity["samples"], identity["sample_tokens"]) == (samples, 128)
        assert "samples" not in nodes[f"evaluate_pairs.{name}"].identity
    assert ("samples" in nodes["evaluate.sft"].hashed) == (samples != 0)


def test_a_section_s_own_seed_wins(tmp_path):
    nodes = graph(tmp_path, recipe(sft__seed=1, pool__seed=2))
    assert nodes["sft"].identity["seed"] == 1
    assert nodes["pool"].identity["sources"][0]["seed"] == 2
    assert nodes["base"].identity["seed"] == 7


def test_merged_sources_keep_their_order(tmp_path):
    sources = [{"builtin": "quickstart", "rows": rows} for rows in (30, 20)]
    config = graph(tmp_path, recipe(pool={"sources": sources}))["pool"].identity
    assert [source["rows"] for source in config["sources"]] == [30, 20]


def test_tuning_on_given_data_needs_no_pool(tmp_path):
    data = recipe("pool", "scorers", "embedding", "select", sft__data={"builtin": "quickstart_heldout", "rows": 5})
    nodes = graph(tmp_path, data)
    assert {"sft_data", "sft"} <= set(nodes)
    assert nodes["sft"].parents["data"].label == "sft_data"


def test_a_published_scorer_is_not_trained(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    nodes = graph(tmp_path, recipe(scorers={"quality": {"model": str(tmp_path / "model")}}, select__score="quality"))
    assert "train_scorer.quality" not in nodes
    score = nodes["score.quality"]
    assert list(score.parents) == ["pool"]
    assert set(score.hashed["model"]) == {"content"}
    assert score.runtime["model"] == str(tmp_path / "model")
    assert set(nodes["select"].parents) == {"pool", "quality", "embed"}


def test_a_scorer_can_be_trained_without_a_pool(tmp_path):
    data = recipe("pool", "embedding", "select", "sft", "evaluate")
    assert set(graph(tmp_path, data)) == {
        "pretraining_data",
        "base",
        "train_scorer.complexity",
        "train_scorer.quality",
    }


def test_an_untuned_published_model_is_evaluated_from_its_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    nodes = graph(tmp_path, recipe(sft__model=str(tmp_path / "model")))
    before = nodes["evaluate.base"]
    assert set(before.parents) == {"data"}
    assert before.identity["model"] == nodes["sft"].identity["model"]
    assert before.runtime["model"] == str(tmp_path / "model")


TRAINED = {
    "data": {"builtin": "quickstart", "rows": 4},
    "model": "base",
    "global_batch_size": 8,
}
MISSING = [
    (recipe("pool", "scorers", "embedding"), "select", "pool:", "select"),
    (recipe("embedding"), "select", "embedding: or embeddings:", "select"),
    (recipe("pool", "scorers", "select", "sft", "evaluate"), "embedding", "pool:", "embedding"),
    (recipe("select"), "sft", "select: (or sft.data:)", "sft"),
    (recipe("sft"), "evaluate", "sft: or dpo: (or evaluate.model)", "evaluate"),
    (recipe("base", "scorers", "embedding", "select"), "sft", "base: (the section says model: base)", "sft"),
    (recipe("base", "scorers"), "embedding", "base: (the section says model: base)", "embedding"),
    (
        recipe("base", scorers={"quality": {"train": TRAINED}}),
        "scorers.quality.train",
        "base: (the section says model: base)",
        "scorers.quality.train",
    ),
]


@pytest.mark.parametrize(("data", "section", "wanted", "removable"), MISSING)
def test_a_missing_section_is_named(tmp_path, data, section, wanted, removable):
    with pytest.raises(UserError) as caught:
        graph(tmp_path, data)
    assert str(caught.value) == (
        f"{tmp_path / 'r.yaml'}: {section}: needs {wanted}, and the recipe has none. Add it, or leave {removable}: out."
    )


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (recipe("scorers"), "both scores (scorers: or scores:), because select.method deita ranks by them"),
        (
            recipe(scorers__quality=None),
            "scorers.quality: or scores.quality:, because select.method deita ranks by it",
        ),
        (
            recipe("scorers", select__method="quality"),
            "scorers.quality: or scores.quality:, because select.method quality ranks by it",
        ),
    ],
)
def test_missing_scores_are_named_with_the_methods_that_read_none(tmp_path, data, wanted):
    with pytest.raises(UserError) as caught:
        graph(tmp_path, data)
    assert str(caught.value) == (
        f"{tmp_path / 'r.yaml'}: select: needs {wanted}; or choose a method that reads none: random, "
        "longest_response, ifd (docs/selection.md)."
    )


def test_a_section_that_reads_a_wrong_one_is_not_a_second_problem(tmp_path):
    wrong = {"model": "no/such folder"}
    for changes in ({"perplexity": wrong, "select__method": "ifd"}, {"scorers__quality": wrong}):
        with pytest.raises(UserError) as caught:
            graph(tmp_path, recipe(**changes))
        assert "no/such folder is neither" in str(caught.value) and "\n" not in str(caught.value)


def test_a_published_scorer_without_a_pool_has_nothing_to_score(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    data = {"name": "tiny", "scorers": {"quality": {"model": str(tmp_path)}}}
    with pytest.raises(UserError, match=r"scorers\.quality: needs pool:, and the recipe has none"):
        graph(tmp_path, data)


@pytest.mark.parametrize(
    ("size", "launch", "micro", "message"),
    [
        (9, "cpu_ddp", None, "9 is not a multiple of 2 (2 ranks); nearest that fit: 8 or 10."),
        (9, "cpu", 4, "9 is not a multiple of 4 (1 ranks x 4 rows per device); nearest that fit: 8 or 12."),
        (20, "cpu_ddp", 4, "20 is not a multiple of 8 (2 ranks x 4 rows per device); nearest that fit: 16 or 24."),
        (3, "cpu_ddp", 4, "3 is not a multiple of 8 (2 ranks x 4 rows per device); nearest that fit: 8."),
    ],
)
@pytest.mark.parametrize("where", ["sft", "base.pretrain", "scorers.quality.train"])
def test_a_batch_that_the_ranks_do_not_divide_is_refused(tmp_path, where, size, launch, micro, message):
    place = where.replace(".", "__")
    changes = {f"{place}__global_batch_size": size, f"{place}__launch": launch}
    changes[f"{place}__trainer__per_device_train_batch_size"] = micro
    with pytest.raises(UserError) as caught:
        graph(tmp_path, recipe(**changes))
    assert str(caught.value) == f"{tmp_path / 'r.yaml'}: {where}.global_batch_size: {message}"


def test_a_batch_that_is_divided_is_taken(tmp_path):
    changes = {"sft__global_batch_size": 24, "sft__launch": "cpu_ddp", "sft__trainer__per_device_train_batch_size": 4}
    assert graph(tmp_path, recipe(**changes))["sft"].identity["global_batch_size"] == 24


@pytest.mark.parametrize(
    ("until", "labels"),
    [
        (None, LABELS),
        ("pool", ["pool"]),
        ("base", ["pretraining_data", "base"]),
        ("train_scorer", ["pretraining_data", "base", "train_scorer.complexity", "train_scorer.quality"]),
        ("embed", LABELS[:8]),
        ("select", LABELS[:9]),
        ("sft", LABELS[:10]),
        ("evaluate", LABELS),
        # A label names one stage of its kind, with what that one reads.
        ("pretraining_data", ["pretraining_data"]),
        ("heldout_data", ["heldout_data"]),
        ("score.quality", ["pretraining_data", "base", "pool", "train_scorer.quality", "score.quality"]),
        ("evaluate.base", ["pretraining_data", "base", "heldout_data", "evaluate.base"]),
    ],
)
def test_stages_until(tmp_path, until, labels):
    assert list(stages_until(graph(tmp_path, recipe()), until)) == labels


def test_until_an_unknown_stage_names_the_known_ones(tmp_path):
    with pytest.raises(UserError) as caught:
        stages_until(graph(tmp_path, recipe("scorers", "embedding", "evaluate", select__method="random")), "embed")
    assert str(caught.value) == (
        "until embed: the recipe has no such stage; it has pool, pretraining_data, base, select, sft"
    )

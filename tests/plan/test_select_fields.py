"""Which fields of `select:` go into the selection's configuration, and which are refused."""

import json
from pathlib import Path

import pytest
from tiny_recipe import data_lines, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.plan.select_fields import unread_fields
from deita_train.recipe.schema import Select
from deita_train.selection.settings import METHODS

pytestmark = pytest.mark.usefixtures("no_gpus")

# What each method's artefact is decided by. Those of the methods that were there first must stay as they are, because
# they are part of the keys of what is in people's stores.
OF_DEITA = {"score": "evol", "threshold": 0.9, "center": False}
WEIGHTED = {"weights": {"c": 2.0, "quality": 1.0}, "orders": {"c": "lowest"}}
PLAIN_WEIGHTED = {
    "weights": {"c": {"weight": 2.0, "order": "lowest"}, "quality": {"weight": 1.0, "order": "highest"}},
    "scale": "z",
    "combine": "sum",
}
CONFIGS = {
    "weighted": {"score": PLAIN_WEIGHTED},
    "deita": OF_DEITA,
    "evol_score": {"score": "evol"},
    "complexity": {"score": "complexity"},
    "quality": {"score": "quality"},
    "random": {"seed": 7},
    "longest_response": {},
    "whole_pool": {},
    "longest_instruction": {},
    "direct_score": {"column": "c"},
    "perplexity": {"column": "c", "order": "highest"},
    "ifd": {"column": "c"},
    "instag": {"column": "c"},
    "mig": {"column": "c", "label_similarity": 0.9, "score": "evol"},
    "k_center": {"score": "evol", "center": False},
    "kmeans": {"score": "evol", "center": False, "clusters": None, "seed": 7},
    "facility_location": {"score": "evol", "center": False, "quality_weight": 0.5},
    "target": {"center": False},
    "fit": {"column": "c", "among": "instruction"},
    "gist": {"score": "evol", "center": False, "distance_weight": 0.1},
}
PARENTS = {
    "scores": {"complexity": "score.complexity", "quality": "score.quality"},
    "embeddings": {"embed": "embed"},
    "target": {"target": "embed.target"},
}


def select_of(folder, method, *without, **changes):
    changes = {f"select__{name}": value for name, value in changes.items()}
    if METHODS[method].column:
        changes["select__column"] = "c"
    if method == "whole_pool":
        changes["select__budget"] = None
    if method == "weighted":
        changes["select__score"] = WEIGHTED
    if method == "target":
        changes["select__target"] = {"builtin": "quickstart_heldout", "rows": 5}
    return graph(folder, recipe(*without, select__method=method, **changes))["select"]


def parents_of(node):
    return {name: parent.label for name, parent in node.parents.items()}


def test_every_method_has_a_configuration():
    assert set(CONFIGS) == set(METHODS)
    stated = {name for config in CONFIGS.values() for name in config}
    assert stated == {*(name for rules in METHODS.values() for name in rules.settings), "column", "score", "center"}
    later = {name for rules in METHODS.values() for name in rules.later_settings}
    assert later == {name for case in LATER for name in case[1]}


LATER = [
    ("direct_score", {"order": "middle"}),
    ("ifd", {"order": "lowest"}),
    ("longest_response", {"unit": "tokens"}),
]


@pytest.mark.parametrize(("method", "stated"), LATER)
def test_a_later_setting_decides_the_key_unless_it_has_its_default(tmp_path, method, stated):
    node = select_of(tmp_path, method, **stated)
    assert stated.items() <= node.hashed.items() and node.key != select_of(tmp_path, method).key
    defaults = {name: Select.model_fields[name].default for name in stated}
    assert select_of(tmp_path, method, **defaults).hashed == {"method": method, "budget": 10, **CONFIGS[method]}


@pytest.mark.parametrize("method", CONFIGS)
def test_the_configuration_holds_what_the_method_reads(tmp_path, method):
    node = select_of(tmp_path, method)
    budget = None if method == "whole_pool" else 10
    assert node.hashed == {"method": method, "budget": budget, **CONFIGS[method]}
    wanted = {"pool": "pool"}
    for need in METHODS[method].reads:
        wanted |= PARENTS.get(need, {})
    if method in ("complexity", "quality", "weighted"):
        dimension = "complexity" if method == "complexity" else "quality"
        wanted = {"pool": "pool", dimension: f"score.{dimension}"}
    assert parents_of(node) == wanted


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("perplexity", "order", "lowest"),
        ("kmeans", "clusters", 4),
        ("kmeans", "seed", 3),
        ("facility_location", "quality_weight", 0.25),
        ("mig", "label_similarity", 0.5),
        ("deita", "threshold", 0.5),
    ],
)
def test_what_is_stated_decides_the_key(tmp_path, method, field, value):
    node = select_of(tmp_path, method, **{field: value})
    assert node.hashed == {"method": method, "budget": 10, **CONFIGS[method], field: value}
    assert node.key != select_of(tmp_path, method).key


def test_one_dimension_is_enough_for_a_method_that_ranks_by_it(tmp_path):
    node = select_of(tmp_path, "kmeans", score="quality")
    assert parents_of(node) == {"pool": "pool", "quality": "score.quality", "embed": "embed"}
    assert node.identity["score"] == "quality"


def test_k_center_takes_scores_where_they_are(tmp_path):
    node = select_of(tmp_path, "k_center", "scorers")
    assert parents_of(node) == {"pool": "pool", "embed": "embed"}
    assert "score" not in node.identity
    with pytest.raises(
        UserError,
        match=r"select: needs scorers\.quality: or scores\.quality:, because select.method k_center ranks by it",
    ):
        select_of(tmp_path, "k_center", "scorers", score="quality")


def test_facility_location_without_a_weight_needs_no_scores(tmp_path):
    node = select_of(tmp_path, "facility_location", "scorers", quality_weight=0.0)
    assert parents_of(node) == {"pool": "pool", "embed": "embed"}
    assert node.hashed == {"method": "facility_location", "budget": 10, "quality_weight": 0.0, "center": False}


@pytest.mark.parametrize("method", [name for name, rules in METHODS.items() if rules.column])
def test_a_missing_column_is_asked_for(tmp_path, method):
    with pytest.raises(
        UserError,
        match=rf"r.yaml: select.column: method {method} needs \w+:, (the|which|or).* column",
    ):
        graph(tmp_path, recipe(select__method=method))


def refusal(folder, data, *sets):
    with pytest.raises(UserError) as caught:
        plan(folder, data, *sets)
    return str(caught.value).removeprefix(f"{folder / 'recipe.yaml'}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"select__method": "random", "select__launch": "cpu_ddp"},
            "select.launch: would have no effect with method random; leave it out.",
        ),
        ({"select__column": "c"}, "select.column: would have no effect with method deita; leave it out."),
        (
            {"select__method": "random", "select__threshold": 0.8},
            "select.threshold: would have no effect with method random; leave it out.",
        ),
        (
            {"select__method": "quality", "select__score": "quality"},
            "select.score: would have no effect with method quality; leave it out.",
        ),
        (
            {"select__clusters": 3, "sweep": {"select.method": ["random", "k_center"]}},
            "select.clusters: would have no effect with methods deita, random, k_center; leave it out.",
        ),
        (
            {"sweep": {"select.quality_weight": [0.1, 0.9]}},
            "select.quality_weight: would have no effect with method deita; leave it out.",
        ),
        (
            {"select__method": "facility_location", "select__quality_weight": 0.0, "select__score": "quality"},
            "select.score: would have no effect with method facility_location; leave it out.",
        ),
    ],
)
def test_a_field_that_no_method_reads_is_refused(tmp_path, changes, message):
    assert refusal(tmp_path, recipe(**changes)) == message


def test_a_sweep_over_methods_shares_one_section(tmp_path):
    data = recipe(
        select__threshold=0.8, select__clusters=3, sweep={"select.method": ["random", "kmeans"], "whole_pool": True}
    )
    made = plan(tmp_path, data)
    configs = {cell.label: cell.nodes["select"].hashed for cell in made.cells}
    assert configs["random"] == {"method": "random", "budget": 10, "seed": 7}
    assert configs["kmeans"] == {"method": "kmeans", "budget": 10, **CONFIGS["kmeans"], "clusters": 3}
    assert configs["base run"]["threshold"] == 0.8


def test_another_method_by_set_leaves_the_file_as_it_is(tmp_path):
    data = recipe(select__threshold=0.8)
    assert plan(tmp_path, data, "select.method=random").cells[0].nodes["select"].identity["method"] == "random"
    message = "select.clusters: would have no effect with methods random, deita; leave it out."
    assert refusal(tmp_path, data, "select.method=random", "select.clusters=3") == message


def test_every_field_is_read_by_a_method():
    assert unread_fields(Select(budget=1, column="c", clusters=2, unit="tokens"), METHODS) == []
    stated = Select(
        budget=1, threshold=0.5, score="quality", column="c", order="lowest", clusters=2, quality_weight=0.1,
        label_similarity=0.5, seed=3, launch="cpu", allow_fewer=True, among="pool",
    )  # fmt: skip
    assert set(unread_fields(stated, ["longest_response"])) == {
        "threshold", "column", "order", "clusters", "quality_weight", "label_similarity", "score", "launch", "among",
    }  # fmt: skip


def test_validate_reads_the_column(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "ifd": value, "tags": tags} for value, tags in [(0.5, ["a"]), (None, []), (1.5, ["b"])]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pool = {"dataset": str(tmp_path / "rows.jsonl")}

    def told(**changes):
        changes = {f"select__{name}": value for name, value in changes.items()}
        changes["select__budget"] = {"share": 0.3}
        lines = data_lines(plan(tmp_path, recipe("sft", "evaluate", pool=pool, **changes)))
        return lines[[line.startswith("select") for line in lines].index(True) :]

    assert told(method="ifd", column="ifd") == [
        "select: 1 of 3 rows can be ranked by column 'ifd'",
        "  no_value: 1",
        "  ifd_not_below_one: 1",
    ]
    assert told(method="mig", column="tags") == ["select: 2 of 3 rows can be ranked by column 'tags'", "  no_tags: 1"]
    with pytest.raises(UserError, match="the pool has no column 'rating'"):
        told(method="direct_score", column="rating")


def test_only_deita_is_launched(tmp_path):
    plain = select_of(tmp_path, "deita")
    assert "launch" not in plain.runtime  # one process on a CPU, as every other method
    node = select_of(tmp_path, "deita", launch="cpu_ddp")
    assert (node.runtime["launch"]["num_processes"], node.runtime["launch"]["use_cpu"]) == (2, True)
    assert node.key == plain.key and node.identity == plain.identity
    assert "launch" not in select_of(tmp_path, "k_center", launch="cpu_ddp").runtime
    with pytest.raises(UserError, match=r"select\.launch: nowhere is unknown; allowed: cpu, "):
        select_of(tmp_path, "deita", launch="nowhere")


@pytest.mark.parametrize("gpus", [1, 8])
def test_on_a_machine_with_gpus_deita_takes_one(tmp_path, monkeypatch, gpus):
    monkeypatch.setattr(launch, "count_gpus", lambda: gpus)
    launch.resolve_launch.cache_clear()
    found = select_of(tmp_path, "deita").runtime["launch"]
    assert (Path(found["config_file"]).stem, found["num_processes"], found["use_cpu"]) == ("single_gpu", 1, False)
    assert "launch" not in select_of(tmp_path, "random").runtime
    assert select_of(tmp_path, "deita", launch="ddp").runtime["launch"]["num_processes"] == gpus
    launch.resolve_launch.cache_clear()


def test_weights_name_what_the_recipe_measures_else_columns_of_the_pool(tmp_path):
    score = {"weights": {"evol": 1.0, "ifd": 1.0, "own": 1.0}}
    perplexity = {"model": "base"}
    node = graph(tmp_path, recipe(perplexity=perplexity, select__score=score))["select"]
    assert parents_of(node) == {
        "pool": "pool",
        **PARENTS["scores"],
        **PARENTS["embeddings"],
        "perplexity": "perplexity",
    }
    node = graph(tmp_path, recipe("scorers", select__score={"weights": {"ifd": 1.0, "quality": 1.0}}))["select"]
    assert parents_of(node) == {"pool": "pool", "embed": "embed"}  # columns of the pool
    assert "score_turns" not in node.identity
    with pytest.raises(UserError, match="select: needs both scores"):
        graph(tmp_path, recipe("scorers", select__score=score))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "weighted"}, "select.score: method weighted needs score: {weights: {NAME: 1.0, ...}}"),
        ({"method": "mig", "column": "c", "score": {"weights": {"c": 1.0}}}, "select.score: method mig gives its"),
        ({"score": {"weights": {"c": 0.0}}}, "select.score.weights.c: 0.0 is a decimal number; expected more than 0"),
        (
            {"score": {"weights": {"c": 1.0}, "combine": "product"}},
            "select.score: a product of numbers below and above",
        ),
        ({"score": {"weights": {"c": 1.0}, "orders": {"d": "lowest"}}}, "select.score: orders.d: would have no effect"),
        ({"between": [0.5, 0.5]}, "select.between: [0.5, 0.5]: write the lower quantile first"),
        ({"between": [0.1, 0.5]}, "select.between: method deita reads no column of numbers, of which [0.1, 0.5]"),
    ],
)
def test_a_score_or_limits_that_cannot_be(tmp_path, changes, message):
    found = refusal(tmp_path, recipe(**{f"select__{name}": value for name, value in changes.items()}))
    assert message in found


@pytest.mark.parametrize(("method", "column"), [("fit", "perplexity"), ("perplexity", "perplexity"), ("ifd", "ifd")])
def test_what_perplexity_measures_has_its_own_names(tmp_path, method, column):
    node = graph(tmp_path, recipe(perplexity={"model": "base"}, select__method=method))["select"]
    assert node.identity["column"] == column
    assert parents_of(node) == {"pool": "pool", "perplexity": "perplexity"}


def test_limits_count_in_the_key_of_every_method(tmp_path):
    node = select_of(tmp_path, "ifd", between=[0.2, 0.8])
    assert node.hashed == {"method": "ifd", "budget": 10, "column": "c", "between": {"c": [0.2, 0.8]}}
    node = select_of(tmp_path, "random", between={"quality": [0, 0.9]})
    assert parents_of(node) == {"pool": "pool", "quality": "score.quality"}
    assert node.hashed["between"] == {"quality": [0, 0.9]} and "score" not in node.hashed


def test_a_length_in_tokens_is_counted_where_sft_reads_the_rows(tmp_path):
    nodes = graph(tmp_path, recipe(select__method="longest_response", select__unit="tokens"))
    assert parents_of(nodes["select"]) == {"pool": "pool", "lengths": "lengths"}
    assert nodes["lengths"].hashed["answer_tokens"] is True
    plain = graph(tmp_path, recipe(select__budget={"tokens": 500}))
    assert "answer_tokens" not in plain["lengths"].hashed
    with pytest.raises(UserError, match=r"select\.unit: counts tokens as SFT reads them, and no sft:"):
        graph(tmp_path, recipe("sft", "evaluate", select__method="longest_response", select__unit="tokens"))


def test_validate_counts_the_numbers_of_own_columns(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "raw_scores": {"IFD": value, "note": "x"}} for value in (0.5, None, 1.5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pool = {"dataset": str(tmp_path / "rows.jsonl")}
    score = {"weights": {"raw_scores.IFD": 1.0}}
    changes = {"select__method": "weighted", "select__score": score, "select__budget": 2}
    lines = data_lines(plan(tmp_path, recipe("sft", "evaluate", pool=pool, **changes)))
    assert "select: 2 of 3 rows have a number in column 'raw_scores.IFD'" in lines
    score["weights"] = {"raw_scores.ifd": 1.0}
    with pytest.raises(UserError, match="no row of the pool has 'ifd' in its column 'raw_scores'"):
        data_lines(plan(tmp_path, recipe("sft", "evaluate", pool=pool, **changes)))


def test_strata_count_in_the_key_and_may_need_embeddings(tmp_path):
    node = select_of(tmp_path, "random", strata={"by": "source"})
    assert node.hashed["strata"] == {"by": "source", "share": "proportional", "seeds": "by name"}
    assert parents_of(node) == {"pool": "pool"}
    node = select_of(tmp_path, "random", strata={"by": "embedding_clusters", "share": "equal"})
    own = {"clusters": None, "seed": 7}
    assert node.hashed["strata"] == {"by": "embedding_clusters", "share": "equal", "seeds": "by name", **own}
    assert parents_of(node) == {"pool": "pool", "embed": "embed"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strata": {"by": "source"}, "method": "whole_pool", "budget": None}, "select: strata: divide a budget"),
        ({"strata": {"by": "source", "clusters": 3}}, "select.strata: clusters: would have no effect with by: source"),
        (
            {"strata": {"by": "embedding_clusters", "share": {"a": 1.0}}},
            "select.strata: share: clusters have no names before they are made",
        ),
    ],
)
def test_strata_that_cannot_be(tmp_path, changes, message):
    assert message in refusal(tmp_path, recipe(**{f"select__{name}": value for name, value in changes.items()}))


@pytest.mark.parametrize(
    "of_method",
    [{"method": "random"}, {"method": "deita", "score": {"weights": {"quality": 1.0}}}],
    ids=["random", "a score that is not made yet"],
)
def test_validate_counts_the_strata(tmp_path, of_method):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "domain": domain} for domain in ("code", "chat", None, "code")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = of_method | {"budget": 2, "strata": {"by": "domain"}}
    changes = {f"select__{name}": value for name, value in fields.items()}
    pool = {"dataset": str(tmp_path / "rows.jsonl")}
    lines = data_lines(plan(tmp_path, recipe("sft", "evaluate", pool=pool, **changes)))
    told = lines.index("select: 2 strata by 'domain', rows of each: code 2, chat 1")
    assert lines[told + 1] == "  no_stratum: 1"


def test_the_queries_are_embedded_as_the_pool_is(tmp_path):
    queries = {"builtin": "quickstart_heldout", "rows": 5}
    told = {"embedding__pooling": "weighted_mean", "select__method": "target", "select__target": queries}
    nodes = graph(tmp_path, recipe(**told))
    one, other = nodes["embed"], nodes["embed.target"]
    assert (one.kind, one.hashed, one.runtime) == (other.kind, other.hashed, other.runtime)
    assert one.hashed["pooling"] == "weighted_mean"
    assert other.parents["pool"].label == "target_data"
    assert one.parents["model"].key == other.parents["model"].key
    more = graph(tmp_path, recipe(**{**told, "select__target": {**queries, "rows": 6}}))
    assert more["embed"].key == one.key and more["select"].key != nodes["select"].key


@pytest.mark.parametrize(
    ("without", "changes", "message"),
    [
        ((), {"method": "target"}, "select.target: method target needs target: {dataset: ...}, the questions"),
        (
            ("embedding",),
            {"method": "target", "target": {"builtin": "quickstart_heldout", "rows": 5}},
            "select.target: method target embeds its queries by the encoder of the pool; state embedding:",
        ),
        (
            (),
            {"method": "target", "target": {"embeddings": "vectors.jsonl"}},
            "select.target.embeddings: embedding: makes the pool's vectors, and those of a file may be another",
        ),
        (
            ("embedding",),
            {"method": "target", "target": {"embeddings": "vectors.jsonl", "rows": 5}},
            "select.target: embeddings: is a file of vectors and stands alone; leave rows out",
        ),
        (
            (),
            {"target": {"builtin": "quickstart_heldout", "rows": 5}},
            "select.target: would have no effect with method deita",
        ),
    ],
)
def test_a_target_that_cannot_be(tmp_path, without, changes, message):
    (tmp_path / "vectors.jsonl").write_text("{}")
    data = recipe(*without, **{f"select__{name}": value for name, value in changes.items()})
    if without:
        data["embeddings"] = {"file": str(tmp_path / "vectors.jsonl")}
    assert message in refusal(tmp_path, data)

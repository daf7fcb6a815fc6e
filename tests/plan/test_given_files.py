"""Scores and embeddings made elsewhere, and a model evaluated as it is: their place in the graph and in `validate`."""

import json

import pytest
from tiny_recipe import data_lines, dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.data.builtin import builtin_conversations
from deita_train.data.embeddings import embedded_ids, embeddings_of
from deita_train.errors import UserError
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import embeddings_file

pytestmark = pytest.mark.usefixtures("no_gpus")
NOT_SELECTED = ("sft", "evaluate", "base", "scorers", "embedding")


@pytest.fixture
def given(tmp_path):
    """The recipe's pool with scores and embeddings beside it, as (recipe's sections, folder)."""
    rows = [row.row for row in builtin_conversations("quickstart", 60, 7)]
    turns = {row["id"]: sum(message["role"] == "user" for message in row["messages"]) for row in rows}
    write(tmp_path / "scores.jsonl", *({"id": row, **both([2.0] * number)} for row, number in turns.items()))
    write(tmp_path / "vectors.jsonl", *({"id": row, "embedding": [1.0, 0.5]} for row in [*turns, "other"]))
    file = str(tmp_path / "scores.jsonl")
    return {
        "scores": {"complexity": file, "quality": file},
        "embeddings": {"file": str(tmp_path / "vectors.jsonl"), "center": True},
    }


def both(scores):
    return {"complexity_scores": scores, "quality_scores": scores}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def refusal(folder, data):
    with pytest.raises(UserError) as caught:
        graph(folder, data)
    return str(caught.value).removeprefix(f"{folder / 'r.yaml'}: ")


def test_files_stand_in_the_place_of_models(tmp_path, given):
    nodes = graph(tmp_path, recipe(*NOT_SELECTED, **given))
    assert {label: node.kind for label, node in nodes.items()} == {
        "pool": "pool",
        "scores.complexity": "scores_file",
        "scores.quality": "scores_file",
        "embeddings": "embeddings_file",
        "select": "select",
    }
    select = nodes["select"]
    assert {name: node.label for name, node in select.parents.items()} == {
        "pool": "pool",
        "complexity": "scores.complexity",
        "quality": "scores.quality",
        "embed": "embeddings",
    }
    assert select.identity["center"] is True and select.identity["threshold"] == 0.9
    assert all(nodes[label].parents == {"pool": nodes["pool"]} for label in list(nodes)[1:4])


def test_a_file_counts_by_its_content_and_not_by_its_name(tmp_path, given):
    first = graph(tmp_path, recipe(*NOT_SELECTED, **given))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((tmp_path / "scores.jsonl").read_bytes())
    again = graph(
        tmp_path, recipe(*NOT_SELECTED, **{**given, "scores": {"complexity": str(copy), "quality": str(copy)}})
    )
    assert {label: node.key for label, node in again.items()} == {label: node.key for label, node in first.items()}
    assert first["scores.complexity"].key != first["scores.quality"].key
    write(copy, {"id": "a"})
    changed = graph(tmp_path, recipe(*NOT_SELECTED, **{**given, "scores": {**given["scores"], "quality": str(copy)}}))
    assert {label for label, node in changed.items() if node.key != first[label].key} == {"scores.quality", "select"}


def test_one_dimension_may_come_from_a_file(tmp_path, given):
    scores = {"quality": given["scores"]["quality"]}
    nodes = graph(tmp_path, recipe("sft", "evaluate", scorers__quality=None, scores=scores))
    parents = nodes["select"].parents
    assert (parents["complexity"].label, parents["quality"].label) == ("score.complexity", "scores.quality")


@pytest.mark.parametrize(
    ("without", "changes", "message"),
    [
        (
            ("scorers",),
            {},
            "embeddings: embedding: makes the same for every row of the pool; leave one of the two out.",
        ),
        (
            ("embedding",),
            {"scorers__complexity": None},
            "scores.quality: scorers.quality: makes the same for every row of the pool; leave one of the two out.",
        ),
        (("pool", *NOT_SELECTED), {}, "scores: needs pool:, and the recipe has none. Add it, or leave scores: out."),
        (
            ("pool", *NOT_SELECTED),
            {"scores": None},
            "embeddings: needs pool:, and the recipe has none. Add it, or leave embeddings: out.",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, given, without, changes, message):
    assert refusal(tmp_path, recipe(*without, **{**given, **changes})) == message


@pytest.mark.parametrize("where", ["scores__quality", "embeddings__file"])
def test_a_file_that_is_not_there(tmp_path, given, where):
    said = refusal(tmp_path, recipe(*NOT_SELECTED, **given, **{where: "missing.parquet"}))
    assert said.startswith(f"{where.replace('__', '.')}: missing.parquet does not exist (looked in ")


def test_validate_reads_them(tmp_path, given):
    told = data_lines(plan(tmp_path, recipe(*NOT_SELECTED, **given)))
    scores, vectors = tmp_path / "scores.jsonl", tmp_path / "vectors.jsonl"
    assert told == [
        "pool: 60 rows read, 60 usable",
        f"scores.complexity: all 60 rows of the pool are in {scores}, and 0 others",
        f"scores.quality: all 60 rows of the pool are in {scores}, and 0 others",
        f"embeddings: all 60 rows of the pool are in {vectors}, and 1 others",
    ]
    write(vectors, {"id": "other", "embedding": [1.0]})
    with pytest.raises(UserError, match="60 of the pool's 60 rows are not in it"):
        data_lines(plan(tmp_path, recipe(*NOT_SELECTED, **given)))


def test_a_model_is_evaluated_as_it_is(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    name = str(tmp_path / "model")
    whole = graph(tmp_path, dpo_recipe(sft__model=name))
    sections = {"evaluate": {**dpo_recipe()["evaluate"], "model": name}}
    alone = graph(tmp_path, {"name": "tiny", "seed": 7, **sections})
    assert list(alone) == ["heldout_data", "evaluate.base", "heldout_pairs", "evaluate_pairs.base"]
    assert all(alone[label].key == whole[label].key for label in alone)
    (tmp_path / "mine.jinja").write_text(
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    )
    sections["evaluate"]["chat_template"] = str(tmp_path / "mine.jinja")
    other = graph(tmp_path, {"name": "tiny", "seed": 7, **sections})
    assert other["evaluate.base"].key != alone["evaluate.base"].key


@pytest.mark.parametrize("field", ["model", "revision", "chat_template"])
def test_the_models_of_a_recipe_are_evaluated_and_no_other(tmp_path, field):
    said = refusal(tmp_path, recipe(**{f"evaluate__{field}": "x"}))
    assert said == f"evaluate.{field}: would have no effect beside sft:; leave it out."


def test_queries_may_be_vectors_beside_those_of_the_pool(tmp_path, given):
    vectors = write_queries(tmp_path)
    told = {"select__method": "target", "select__target": {"embeddings": vectors}}
    data = recipe(*NOT_SELECTED, **told)
    data["embeddings"] = given["embeddings"]
    nodes = graph(tmp_path, data)
    node = nodes["embeddings.target"]
    assert (node.kind, node.parents) == ("embeddings_file", {})
    assert {name: parent.label for name, parent in nodes["select"].parents.items()} == {
        "pool": "pool", "embed": "embeddings", "target": "embeddings.target",
    }  # fmt: skip
    assert f"embeddings.target: 2 vectors in {vectors}" in data_lines(plan(tmp_path, data))


def test_every_row_of_a_file_of_queries_is_read(tmp_path):
    runtime, work = {"file": write_queries(tmp_path)}, tmp_path / "work"
    work.mkdir()
    context = StageContext("embeddings.target", "embeddings_file", {}, runtime, {}, work, 0, 1, Progress(None))
    result = embeddings_file.run(context)
    assert (result.rows_out, result.metrics) == (2, {"rows": 2, "dimensions": 2, "rows_of_no_use": 0})
    assert embedded_ids(work / "data") == ["q1", "q0"]
    assert embeddings_of(work / "data", ["q0", "q1"]).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def write_queries(folder):
    write(folder / "queries.jsonl", {"id": "q1", "embedding": [1, 0]}, {"id": "q0", "embedding": [0, 1]})
    return str(folder / "queries.jsonl")

"""Identity and location of data sources: what changes a key, what does not, and what is refused at once."""

import hashlib
import json

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tiny_recipe import dpo_recipe, graph, no_gpus, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import inputs
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import pool as pool_stage
from deita_train.store.keys import canonical_json

pytestmark = pytest.mark.usefixtures("no_gpus")
COMMIT = "c" * 40
SHAPE = {"format": None, "roles": {}, "instruction_share": None}


def row(name):
    return {"id": name, "messages": [{"role": "user", "content": name}, {"role": "assistant", "content": "a"}]}


def write(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row(name) if name is not None else {**row("x"), "id": None} for name in names]
    if path.suffix == ".parquet":
        pq.write_table(datasets.Dataset.from_list(rows).data.table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pool(folder, **fields):
    return graph(folder, recipe(pool=fields))["pool"]


def source(folder, **fields):
    return pool(folder, **fields).identity["sources"][0]


def refusal(folder, **fields):
    with pytest.raises(UserError) as caught:
        graph(folder, recipe(pool=fields))
    return str(caught.value).removeprefix(f"{folder / 'r.yaml'}: ")


def made(folder, **fields):
    """The rows of the pool that a recipe's section gives, carried out as its stage does."""
    node = pool(folder, **fields)
    context = StageContext("pool", "pool", node.identity, node.runtime, {}, folder / "work", 0, 1, Progress(None))
    result = pool_stage.run(context)
    return datasets.load_from_disk(str(context.data_dir)), result


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_what_was_read_before_has_the_identity_that_it_had(tmp_path):
    """The published artefacts of these stay valid."""
    file = write(tmp_path / "pool.jsonl", "a")
    named = {"content": sha(file.read_bytes()), "name": "pool.jsonl", "split": None, **SHAPE}
    assert source(tmp_path, dataset=str(file)) == named
    assert pool(tmp_path, dataset=str(file)).runtime == {"sources": [{"dataset": str(file)}]}
    saved = tmp_path / "saved"
    datasets.DatasetDict(train=datasets.Dataset.from_list([row("a")])).save_to_disk(saved)
    listing = {str(path.relative_to(saved)): sha(path.read_bytes()) for path in saved.rglob("*") if path.is_file()}
    assert source(tmp_path, dataset=str(saved), split="train") == {
        "content": sha(canonical_json(listing).encode()),
        "name": "saved",
        "split": "train",
        **SHAPE,
    }
    assert source(tmp_path, dataset="org/rows", revision=COMMIT) == {
        "hub": "org/rows",
        "revision": COMMIT,
        "split": None,
        **SHAPE,
    }
    assert source(tmp_path, builtin="quickstart", rows=5) == {"builtin": "quickstart", "rows": 5, "seed": 7, **SHAPE}


def test_what_is_stated_of_a_hub_dataset_is_in_its_identity(tmp_path):
    plain = source(tmp_path, dataset="org/rows", revision=COMMIT)
    for fields, entry in (
        ({"name": "math"}, {"config": "math"}),
        ({"data_files": "a*"}, {"data_files": ["a*"]}),
        ({"data_files": ["b", "a"]}, {"data_files": ["b", "a"]}),
        ({"streaming": True, "sample": 9}, {"first_rows": 9}),
    ):
        assert source(tmp_path, dataset="org/rows", revision=COMMIT, **fields) == {**plain, **entry}


def test_a_folder_of_shards_counts_by_the_files_that_are_read(tmp_path):
    folder = tmp_path / "repo"
    first, second = write(folder / "data" / "1.jsonl", "a"), write(folder / "data" / "2.jsonl", "b")
    key = pool(tmp_path, dataset=str(folder)).key
    identity = source(tmp_path, dataset=str(folder))
    listing = {f"data/{path.name}": sha(path.read_bytes()) for path in (first, second)}
    assert (identity["content"], identity["name"]) == (sha(canonical_json(listing).encode()), "repo")
    (folder / "README.md").write_text("of no matter")
    assert pool(tmp_path, dataset=str(folder)).key == key
    write(second, "c")
    assert pool(tmp_path, dataset=str(folder)).key != key
    write(second, "b")
    second.rename(folder / "data" / "3.jsonl")
    assert pool(tmp_path, dataset=str(folder)).key != key


def test_a_pattern_is_read_as_its_identity_says(tmp_path, monkeypatch):
    for number in (1, 2):
        write(tmp_path / "d" / f"part-{number}.jsonl", None, None)
    write(tmp_path / "d" / "other.jsonl", "x")
    monkeypatch.chdir(tmp_path)
    assert source(tmp_path, dataset="d/part-*.jsonl")["name"] == "part"
    rows, result = made(tmp_path, dataset="d/part-*.jsonl")
    assert rows["id"] == ["part:0", "part:1", "part:2", "part:3"] and result.rows_in == 4
    assert refusal(tmp_path, dataset="d/prt-*.jsonl").startswith("pool.dataset: d/prt-*.jsonl matches no data file")


def test_the_order_of_patterns_counts(tmp_path):
    write(tmp_path / "d" / "1.jsonl", "a")
    write(tmp_path / "d" / "2.jsonl", "b")
    one = {"dataset": str(tmp_path / "d"), "data_files": ["1*", "2*"]}
    other = {**one, "data_files": ["2*", "1*"]}
    assert pool(tmp_path, **one).key != pool(tmp_path, **other).key
    assert made(tmp_path / "one", **one)[0]["id"] == ["a", "b"]
    assert made(tmp_path / "other", **other)[0]["id"] == ["b", "a"]


def test_a_link_counts_by_what_it_leads_to_and_is_called_by_its_own_name(tmp_path):
    blob = write(tmp_path / "blobs" / "0a1b", None)
    link = tmp_path / "pool.jsonl"
    link.symlink_to(blob)
    assert source(tmp_path, dataset=str(link))["content"] == sha(blob.read_bytes())
    assert made(tmp_path, dataset=str(link))[0]["id"] == ["pool:0"]


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return fsspec.filesystem("memory")


def test_a_url_counts_by_itself_and_the_state_of_its_files(tmp_path, memory):
    content = "".join(json.dumps({"messages": row(name)["messages"]}) + "\n" for name in "ab").encode()
    memory.pipe("/b/pool-1.jsonl", content)
    url = {"dataset": "memory://b/pool-*.jsonl"}
    identity = source(tmp_path, **url)
    assert identity["url"] == "memory://b/pool-*.jsonl"
    assert [entry[:2] for entry in identity["files"]] == [["memory:///b/pool-1.jsonl", len(content)]]
    key = pool(tmp_path, **url).key
    assert pool(tmp_path, **url).key == key
    assert made(tmp_path / "a", **url)[0]["id"] == ["pool:0", "pool:1"]
    streamed = {**url, "streaming": True, "sample": 1}
    assert source(tmp_path, **streamed)["first_rows"] == 1
    assert made(tmp_path / "b", **streamed)[0]["id"] == ["pool:0"]
    memory.pipe("/b/pool-2.jsonl", content)
    assert pool(tmp_path, **url).key != key


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "math"}, "pool.name: {} is not a dataset of the Hub: it has no configurations. Leave name: out."),
        ({"revision": "main"}, "pool.revision: {} is local: it has no revisions. Leave revision: out."),
        (
            {"streaming": True, "sample": 3},
            "pool.streaming: {} is local, and nothing is downloaded. Leave streaming: out.",
        ),
        ({"split": "train"}, "pool.dataset: {}: split 'train' was given, but a file has no splits; leave it out"),
        ({"data_files": "*"}, "pool.dataset: {} is a file; data_files: names files in a folder. Leave it out."),
    ],
)
def test_what_has_no_effect_on_a_local_file(tmp_path, fields, message):
    file = str(write(tmp_path / "pool.jsonl", "a"))
    assert refusal(tmp_path, dataset=file, **fields) == message.format(file)


def test_what_a_url_refuses(tmp_path, memory):
    memory.pipe("/b/p.jsonl", b"{}")
    url = "memory://b/p.jsonl"
    assert refusal(tmp_path, dataset=url, revision="main").startswith(f"pool.revision: {url} is a URL: it has no")
    assert refusal(tmp_path, dataset="memory://b/q.jsonl") == (
        "pool.dataset: memory://b/q.jsonl does not exist. Correct the URL."
    )


@pytest.mark.parametrize("name", ["a/b.csv", "rows.tsv.gz"])
def test_a_name_with_the_suffix_of_a_file_is_no_hub_id(tmp_path, monkeypatch, name):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *asked: pytest.fail(f"the Hub was asked for {asked}"))
    assert refusal(tmp_path, dataset=name).startswith(f"pool.dataset: {name} does not exist (looked ")


def test_sources_of_one_name_have_ids_that_tell_them_apart(tmp_path):
    files = [write(tmp_path / folder / "train.jsonl", None, "own") for folder in ("s1", "s2")]
    sources = [{"dataset": str(file)} for file in files]
    identity = pool(tmp_path, sources=sources).identity
    assert [entry["id_prefix"] for entry in identity["sources"]] == ["s1/train", "s2/train"]
    rows, _ = made(tmp_path, sources=sources)
    assert rows["id"] == ["s1/train:0", "s1/train:own", "s2/train:0", "s2/train:own"]
    assert rows["source"] == ["s1/train"] * 2 + ["s2/train"] * 2
    assert (
        "id_prefix"
        not in pool(tmp_path, sources=[sources[0], {"dataset": "org/rows", "revision": COMMIT}]).identity["sources"][0]
    )


def test_splits_and_configurations_of_one_dataset_are_told_apart(tmp_path):
    hub = {"dataset": "org/rows", "revision": COMMIT}
    sources = [{**hub, "name": "math"}, {**hub, "name": "code"}, {"builtin": "quickstart", "rows": 3}]
    entries = pool(tmp_path, sources=sources).identity["sources"]
    assert [entry.get("id_prefix") for entry in entries] == ["org/rows/math", "org/rows/code", None]


def test_a_draw_is_in_the_identity_only_where_it_is_stated(tmp_path):
    file = str(write(tmp_path / "pool.jsonl", *"abcdefgh"))
    plain = source(tmp_path, dataset=file)
    assert source(tmp_path, dataset=file, rows=3) == {**plain, "draw": {"rows": 3, "seed": 7}}
    assert source(tmp_path, dataset=file, fraction=0.5, seed=1) == {**plain, "draw": {"fraction": 0.5, "seed": 1}}
    rows, result = made(tmp_path, dataset=file, rows=3)
    assert len(rows) == 3 and result.drops == {"not_sampled": 5}


def test_weights_of_files_and_generated_rows(tmp_path):
    file = str(write(tmp_path / "pool.jsonl", *"abcdefgh"))
    sources = [{"dataset": file, "weight": 1}, {"builtin": "quickstart", "rows": 40, "weight": 3}]
    entries = pool(tmp_path, sources=sources).identity["sources"]
    assert [entry["draw"] for entry in entries] == [{"weight": 1.0, "seed": 7}, {"weight": 3.0, "seed": 7}]
    rows, result = made(tmp_path, sources=sources)
    # Usable are 8 and 40 (or fewer, of the generated ones): 3 x 8 = 24 at most.
    assert [rows["source"].count("pool"), len(rows)] == [8, 32]
    assert result.rows_in == result.rows_out + sum(result.drops.values())


def test_a_stream_of_pairs_is_not_drawn(tmp_path):
    pairs = {"dataset": "org/pairs", "revision": COMMIT, "sample": 5}
    data = dpo_recipe(dpo__preferences=pairs)
    drawn = graph(tmp_path, data)["dpo_data"].identity["source"]
    assert (drawn["sample"], drawn["seed"]) == (5, 7) and "first_rows" not in drawn
    data["dpo"]["preferences"]["streaming"] = True
    streamed = graph(tmp_path, data)["dpo_data"].identity["source"]
    assert streamed["first_rows"] == 5 and not {"sample", "seed"} & set(streamed)


def test_given_scores_may_be_shards(tmp_path):
    write(tmp_path / "pool.jsonl", "a", "b")
    for name in "ab":
        scored = {"id": name, "quality_scores": [2.0]}
        (tmp_path / "scores").mkdir(exist_ok=True)
        (tmp_path / "scores" / f"{name}.jsonl").write_text(json.dumps(scored))
    data = recipe(
        "sft", "evaluate", "base", "scorers", "embedding", "select",
        pool={"dataset": str(tmp_path / "pool.jsonl")}, scores={"quality": f"{tmp_path}/scores/*.jsonl"},
    )  # fmt: skip
    by_pattern = graph(tmp_path, data)["scores.quality"]
    data["scores"]["quality"] = str(tmp_path / "scores")
    assert graph(tmp_path, data)["scores.quality"].key == by_pattern.key
    from deita_train.stages.intake.scores_file import read_given_scores

    table = datasets.Dataset.from_list([row("a"), row("b")])
    for file in (by_pattern.runtime["file"], data["scores"]["quality"]):
        assert read_given_scores(file, "quality", table).scores.to_pylist() == [[2.0], [2.0]]
    data["scores"]["quality"] = "org/scores"
    with pytest.raises(UserError, match=r"scores\.quality: org/scores does not exist \(looked in "):
        graph(tmp_path, data)


def test_scorer_data_is_read_as_its_identity_says(tmp_path):
    from deita_train.stages.intake.scorer_data import read_scorer_data

    (tmp_path / "labels").mkdir()
    for score in (2, 5):
        labelled = {"instruction": f"q{score}", "response": "a", "score": score}
        (tmp_path / "labels" / f"{score}.jsonl").write_text(json.dumps(labelled))
    data = recipe(scorers__complexity__train__data={"dataset": str(tmp_path / "labels"), "data_files": ["5*", "2*"]})
    node = graph(tmp_path, data)["train_scorer.complexity"]
    assert node.identity["data"]["data_files"] == ["5*", "2*"]
    assert [example.score for example in read_scorer_data(node.identity, node.runtime, "data")] == [5, 2]

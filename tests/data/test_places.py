"""What a dataset's name stands for, which files are read in which order, and what sources are called."""

import errno
import json
import os
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_train.data.places import chosen_files, distinct_names, find_place, source_name
from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError, machine_fault


def write(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"a": pa.array(values, pa.int64())}), path)
    else:
        path.write_text("".join(json.dumps({"a": value}) + "\n" for value in values))
    return path


def places(dataset, **options):
    return [(row.index, row.where, row.row["a"]) for row in iter_rows(str(dataset), **options)]


def values(dataset, **options):
    return [value for *_, value in places(dataset, **options)]


def error(dataset, **options):
    with pytest.raises(UserError) as caught:
        list(iter_rows(str(dataset), **options))
    return str(caught.value)


def test_a_folder_as_the_hub_keeps_it_is_read_in_the_order_of_its_names(tmp_path):
    repo = tmp_path / "repo"
    second = write(repo / "data" / "train-00001-of-00002.parquet", 3)
    first = write(repo / "data" / "train-00000-of-00002.parquet", 1, 2)
    (repo / "README.md").write_text("---\nlicense: mit\n---\n")
    (repo / "dataset_infos.json").write_text("{}")
    (repo / ".gitattributes").write_text("x")
    write(repo / ".cache" / "huggingface" / "x.jsonl", 9)
    assert places(repo) == [(0, f"{first}, row 0", 1), (1, f"{first}, row 1", 2), (2, f"{second}, row 0", 3)]


def test_shards_tell_file_and_line_and_an_empty_one_is_passed_over(tmp_path):
    first, empty, last = write(tmp_path / "a.jsonl", 1, 2), write(tmp_path / "b.jsonl"), write(tmp_path / "c.jsonl", 3)
    assert empty.read_text() == ""
    assert places(tmp_path) == [(0, f"{first}:1", 1), (1, f"{first}:2", 2), (2, f"{last}:1", 3)]
    assert list(iter_rows(str(tmp_path)))[2] == SourceRow(2, f"{last}:1", {"a": 3})


def test_a_pattern(tmp_path, monkeypatch):
    write(tmp_path / "d" / "part-2.jsonl", 3)
    write(tmp_path / "d" / "part-1.jsonl", 1, 2)
    write(tmp_path / "d" / "other.jsonl", 9)
    write(tmp_path / "d" / "deep" / "part-3.jsonl", 4)
    monkeypatch.chdir(tmp_path)
    assert places("d/part-*.jsonl") == [
        (0, "d/part-1.jsonl:1", 1),
        (1, "d/part-1.jsonl:2", 2),
        (2, "d/part-2.jsonl:1", 3),
    ]
    assert values("d/**/part-?.jsonl") == [4, 1, 2, 3]
    assert values(f"{tmp_path}/d/part-[2].jsonl") == [3]
    assert error("d/prt-*.jsonl").startswith("d/prt-*.jsonl matches no data file (looked in ")
    assert "a pattern, and so is data_files" in error("d/*.jsonl", data_files=["x"])
    assert "split 'train' was given" in error("d/*.jsonl", split="train")


def test_a_file_whose_name_has_wildcards_is_that_file(tmp_path):
    path = write(tmp_path / "part[1].jsonl", 1)
    write(tmp_path / "part1.jsonl", 2)
    assert values(path) == [1]
    assert source_name(str(path)) == "part[1]"


def test_files_of_a_folder_by_patterns_come_in_the_order_of_the_patterns(tmp_path):
    for name, value in {"b/2.jsonl": 4, "b/1.jsonl": 3, "a.jsonl": 1, "c.parquet": 9}.items():
        write(tmp_path / name, value)
    assert values(tmp_path, data_files=["b/*.jsonl", "*.jsonl"]) == [3, 4, 1]
    assert values(tmp_path, data_files=["**/*.jsonl"]) == [1, 3, 4]
    assert error(tmp_path, data_files=["*.json"]).startswith(f"{tmp_path}: *.json of data_files matches no data file")
    assert "holds files of several kinds (2 .json, 1 .parquet)" in error(tmp_path, data_files=["b/*", "c*"])
    assert "is a file; data_files" in error(tmp_path / "a.jsonl", data_files=["*"])


def test_what_is_unclear_in_a_folder_is_a_question(tmp_path):
    write(tmp_path / "kinds" / "a.jsonl", 1)
    write(tmp_path / "kinds" / "b.parquet", 2)
    assert "holds files of several kinds (1 .json, 1 .parquet); name those" in error(tmp_path / "kinds")
    write(tmp_path / "twice" / "a.jsonl", 1)
    write(tmp_path / "twice" / "a.json", 1)
    assert "a.json and a.jsonl differ in their suffixes alone" in error(tmp_path / "twice")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("x")
    assert "no data files in this folder" in error(tmp_path / "none")


NAMES = {
    "sharded": (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], ["test", "train"]),
    "own splits": (["train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"], ["test_sft", "train_sft"]),
    "words": (["my_train.jsonl", "dev.jsonl", "eval-1.jsonl"], ["test", "train", "validation"]),
    "folders": (["train/a.jsonl", "valid/a.jsonl"], ["train", "validation"]),
    "some": (["a.jsonl", "test.jsonl"], ["test"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_files_of_several_splits_are_never_read_together(case):
    names, splits = NAMES[case]
    with pytest.raises(UserError, match=f"the splits {', '.join(splits)}.*; state one as split"):
        chosen_files(names, "repo", {}, None)
    chosen = [chosen_files(names, "repo", {}, split) for split in splits]
    assert all(len(files) == 1 for files in chosen) and len({files[0] for files in chosen}) == len(splits)
    with pytest.raises(UserError, match=f"there is no split 'x'; it has {', '.join(splits)}"):
        chosen_files(names, "repo", {}, "x")


def test_a_split_may_be_named_as_its_files_are():
    names = ["dev-1.jsonl", "train.jsonl"]
    assert chosen_files(names, "repo", {}, "dev") == chosen_files(names, "repo", {}, "validation") == ["dev-1.jsonl"]


@pytest.mark.parametrize(
    "names",
    [
        ["data-00000-of-00002.parquet", "data-00001-of-00002.parquet"],
        ["math.jsonl", "code.jsonl", "webdev.jsonl", "trainers.jsonl"],
        ["train.jsonl", "more.jsonl"],
        ["train-1.jsonl", "training/x.jsonl"],
    ],
)
def test_files_of_one_split_are_read_together_in_any_listing_s_order(names):
    shuffled = random.Random(0).sample(names, len(names))
    assert chosen_files(shuffled, "repo", {}, None) == sorted(names)


def test_a_split_that_no_file_tells_of(tmp_path):
    write(tmp_path / "a.jsonl", 1)
    assert "tell of none. Leave it out" in error(tmp_path, split="train")


def test_links_are_read_under_the_name_that_the_user_wrote(tmp_path):
    """As in the Hub's cache, where snapshots/<commit>/pool.jsonl leads to blobs/<hash>."""
    blob = write(tmp_path / "blobs" / "0a1b2c", 1, 2)
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / "snapshots" / "pool.jsonl"
    link.symlink_to(blob)
    assert places(link) == [(0, f"{link}:1", 1), (1, f"{link}:2", 2)]
    assert source_name(str(link)) == "pool"
    assert values(tmp_path / "snapshots") == [1, 2]


def test_folders_behind_links_are_read_once(tmp_path):
    write(tmp_path / "elsewhere" / "b.jsonl", 2)
    write(tmp_path / "pool" / "a.jsonl", 1)
    (tmp_path / "pool" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "pool")
    assert values(tmp_path / "pool") == [1, 2]


def test_a_link_that_leads_nowhere_is_told_as_such(tmp_path):
    write(tmp_path / "a.jsonl", 1)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    assert error(tmp_path) == (
        f"{tmp_path / 'b.jsonl'}:1: there is no such file; it was removed, or is a link that leads nowhere"
    )


@pytest.mark.parametrize("dataset", ["pool", "pool/*.jsonl"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, dataset):
    write(tmp_path / "pool" / "a.jsonl", 1)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises((UserError, PermissionError)) as caught:
        find_place(str(tmp_path / dataset))
    assert "permission denied" in str(machine_fault(caught.value, "x") or caught.value)


def test_a_saved_folder_is_read_whole(tmp_path):
    datasets.Dataset.from_list([{"a": 1}]).save_to_disk(tmp_path / "saved")
    write(tmp_path / "saved" / "x.jsonl", 2)
    assert find_place(str(tmp_path / "saved")).kind == "saved"
    assert values(tmp_path / "saved") == [1]
    assert "written by save_to_disk" in error(tmp_path / "saved", data_files=["*"])


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl.gz", "pool.JSONL", "pool.parquet", "pool.csv.zst"])
def test_source_name_of_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert source_name(str(path)) == "pool"


def test_source_name_of_others(tmp_path, monkeypatch):
    (tmp_path / "v1.json").mkdir()
    assert source_name(f"{tmp_path}/v1.json/") == "v1.json"
    (tmp_path / "my.pool.v2.jsonl").write_bytes(b"")
    assert source_name(str(tmp_path / "my.pool.v2.jsonl")) == "my.pool.v2"
    monkeypatch.chdir(tmp_path)
    assert source_name(".") == tmp_path.name
    assert source_name("*.jsonl") == tmp_path.name
    assert source_name("hkust-nlp/deita-6k-v0") == "hkust-nlp/deita-6k-v0"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("data/part-*.jsonl", "part"),
        ("data/*.parquet", "data"),
        ("data/**/*.jsonl", "data"),
        ("/data/*/train.jsonl", "train"),
        ("a/train-0000?-of-00002.parquet", "train-0000"),
        ("s3://bucket/dir/pool.jsonl.gz", "pool"),
        ("s3://bucket/dir/", "dir"),
        ("s3://bucket", "bucket"),
        ("hf://datasets/owner/name/data/train-*.parquet", "train"),
        ("https://host/a/rows.json?download=true", "rows"),
    ],
)
def test_source_name_of_patterns_and_urls(dataset, name):
    assert source_name(dataset) == name


def local(folder, *names):
    return [str(write(folder / name, 1)) for name in names]


def test_sources_of_one_name_get_the_parents_that_tell_them_apart(tmp_path):
    paths = local(tmp_path, "s1/train.jsonl", "s2/train.jsonl", "s2/pool.jsonl", "x/s3/a.json", "y/s3/a.json")
    expected = ["s1/train", "s2/train", "pool", "x/s3/a", "y/s3/a"]
    assert distinct_names([(path, ()) for path in paths]) == expected
    order = [3, 1, 4, 0, 2]
    assert distinct_names([(paths[place], ()) for place in order]) == [expected[place] for place in order]


def test_parents_are_those_of_the_name_as_it_was_written(tmp_path, monkeypatch):
    local(tmp_path, "home/train.jsonl", "home/old/train.jsonl")
    monkeypatch.chdir(tmp_path / "home")
    assert distinct_names([("train.jsonl", ()), ("old/train.jsonl", ())]) == ["home/train", "old/train"]


def test_what_is_read_of_one_dataset_tells_sources_apart(tmp_path):
    hub = "owner/name"
    assert distinct_names([(hub, ("math", "train")), (hub, ("code", "train"))]) == [
        "owner/name/math/train",
        "owner/name/code/train",
    ]
    a, b = (str(tmp_path / name / "rows") for name in "ab")
    for folder in (a, b):
        Path(folder).mkdir(parents=True)
    assert distinct_names([(a, ("train",)), (a, ("test",)), (b, ("train",))]) == [
        "a/rows/train",
        "a/rows/test",
        "b/rows/train",
    ]


def test_nothing_tells_one_file_from_itself(tmp_path):
    (path,) = local(tmp_path, "p.jsonl")
    other = os.path.relpath(path)
    assert distinct_names([(path, ()), (other, ()), ("owner/name", ())]) == ["p", "p", "owner/name"]

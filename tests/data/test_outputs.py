import pytest

from deita_train.data.outputs import Output
from deita_train.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def text(name, overwrite=False):
    return Output.for_rows(str(name), overwrite)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jsonl", ".jsonl"),
        ("a.JSONL.gz", ".jsonl.gz"),
        ("a.b.json", ".json"),
        ("a.json.zst", ".json.zst"),
        ("a.parquet", ".parquet"),
        ("a", None),
        ("a/", None),
        ("deita-v1.0/", None),
    ],
)
def test_the_suffix_says_what_is_written(tmp_path, name, suffix):
    assert text(f"{tmp_path}/{name}").suffix == suffix


@pytest.mark.parametrize("name", ["a.csv", "a.gz", "deita-v1.0"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"a file ends in one of \.json, .*a folder has no suffix, or ends in '/'"):
        text(tmp_path / name)


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match=r"missing does not exist\. Make it, or correct the path"):
        text(tmp_path / "missing" / "a.jsonl")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_of_another_kind_is_never_replaced(tmp_path, kind):
    place = tmp_path / ("a" if kind == "file" else "a.jsonl")
    place.write_text("mine") if kind == "file" else place.mkdir()
    with pytest.raises(UserError, match=f"is a {kind}, and a "):
        text(place, overwrite=True)


def test_only_folders_like_those_that_are_written_are_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"folder without state\.json: not one that this command replaces"):
        text(tmp_path / "home", overwrite=True)
    with pytest.raises(UserError, match=r"without config\.json or adapter_config\.json"):
        Output.for_model(str(tmp_path / "home"), overwrite=True)
    (tmp_path / "home" / "state.json").write_text("{}")
    assert text(tmp_path / "home", overwrite=True).overwrite


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    output = text(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="torn"), output.writing() as path:
        path.write_text("half")
        assert not output.path.exists()
        raise ValueError("torn")
    assert names(tmp_path) == []
    with output.writing() as path:
        path.write_text("whole")
    assert output.path.read_text() == "whole" and names(tmp_path) == ["a.jsonl"]


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a.jsonl").write_text("old")
    with pytest.raises(ValueError, match="torn"), text(tmp_path / "a.jsonl", overwrite=True).writing() as path:
        path.write_text("half")
        raise ValueError("torn")
    assert (tmp_path / "a.jsonl").read_text() == "old" and names(tmp_path) == ["a.jsonl"]


def write_folder(path, **files):
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(content)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_replaced_on_request_only(tmp_path, kind):
    name = tmp_path / ("a.json" if kind == "file" else "a")

    def write(content, overwrite=False):
        with text(name, overwrite).writing() as path:
            path.write_text(content) if kind == "file" else write_folder(path, state=content)

    def content():
        return (name if kind == "file" else name / "state.json").read_text()

    write("one")
    with pytest.raises(UserError, match=r"is there already\. Give another name, or --overwrite to replace it"):
        write("two")
    assert content() == "one"
    stamp = name.stat().st_mtime_ns
    write("one")  # the same command again
    assert name.stat().st_mtime_ns == stamp
    write("two", overwrite=True)
    assert content() == "two" and names(tmp_path) == [name.name]


def test_a_folder_with_one_file_more_is_another(tmp_path):
    write_folder(tmp_path / "a", state="1", more="2")
    with pytest.raises(UserError, match="is there already"), text(tmp_path / "a").writing() as path:
        write_folder(path, state="1")


def test_a_place_that_must_stay_is_reported_at_once(tmp_path):
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        text(tmp_path / "a.jsonl").refuse_replacing()
    text(tmp_path / "a.jsonl", overwrite=True).refuse_replacing()
    text(tmp_path / "b.jsonl").refuse_replacing()

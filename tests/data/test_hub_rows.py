from types import SimpleNamespace

import datasets
import pytest

from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError

ROWS = [{"a": 1, "t": "one"}, {"a": 2, "t": "two"}, {"a": 3, "t": ""}]


def read(dataset, **kwargs):
    return list(iter_rows(dataset, **kwargs))


def error(dataset, **kwargs):
    with pytest.raises(UserError) as caught:
        read(dataset, **kwargs)
    return str(caught.value)


def fake_hub(monkeypatch, splits, known=True, failure=None, configs=("default",)):
    """A Hub with one dataset; returns the list of (id, revision, split) that were loaded."""
    asked = []

    def load_dataset_builder(path, **options):
        if failure is not None:
            raise failure
        return SimpleNamespace(info=SimpleNamespace(splits=splits if known else None))

    def load_dataset(path, revision=None, split=None):
        asked.append((path, revision, split))
        if split is None:
            return datasets.DatasetDict(splits)
        if split not in splits:
            raise ValueError(f'Unknown split "{split}".')
        return splits[split]

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path, revision=None: configs)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_hub_dataset(monkeypatch):
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[1:])}
    asked = fake_hub(monkeypatch, splits)
    assert read("owner/name", revision="abc", split="test")[1] == SourceRow(1, "owner/name, row 1", ROWS[2])
    assert asked == [("owner/name", "abc", "test")]
    assert "splits train, test; state one" in error("owner/name")
    assert len(asked) == 1, "several splits must be seen before anything is downloaded"
    assert 'Unknown split "dev"' in error("owner/name", split="dev")


@pytest.mark.parametrize("known", [True, False])
def test_hub_dataset_with_one_split_needs_none_stated(monkeypatch, known):
    fake_hub(monkeypatch, {"train": datasets.Dataset.from_list(ROWS)}, known)
    assert [row.row for row in read("owner/name")] == ROWS


def test_hub_dataset_whose_splits_show_only_after_the_download(monkeypatch):
    one = datasets.Dataset.from_list(ROWS)
    fake_hub(monkeypatch, {"train": one, "test": one}, known=False)
    assert "splits train, test; state one" in error("owner/name")


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (ConnectionError("Couldn't reach it (OfflineModeIsEnabled)"), "unset HF_HUB_OFFLINE"),
        (datasets.exceptions.DatasetNotFoundError("doesn't exist"), "log in"),
        (ValueError("Bad split"), "give its path"),
        (RuntimeError("Dataset scripts are no longer supported"), "give its path"),
    ],
)
def test_hub_failures_say_what_to_do(monkeypatch, failure, advice):
    fake_hub(monkeypatch, {}, failure=failure)
    message = error("owner/name", revision="abc", split="train")
    for part in ("'owner/name'", "revision 'abc'", "split 'train'", str(failure), advice):
        assert part in message


def test_a_network_that_fails_on_the_way_is_told_as_such(monkeypatch):
    def stopped(*args, **kwargs):
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from TimeoutError("read timed out")

    fake_hub(monkeypatch, {"train": datasets.Dataset.from_list(ROWS)})
    monkeypatch.setattr(datasets, "load_dataset", stopped)
    assert "connect to the network" in error("owner/name")


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device", "/cache/x.arrow"),
        OSError("Not enough disk space. Needed: 1.2 GB (download: 1 GB, generated: 0.2 GB"),
    ],
)
def test_a_full_disk_under_the_cache_is_told_as_such(monkeypatch, failure):
    fake_hub(monkeypatch, {}, failure=failure)
    message = error("owner/name")
    assert "no space left on device" in message and "HF_HOME" in message
    assert "correct the name" not in message


@pytest.mark.parametrize(
    ("failure", "options", "said"),
    [
        ("Config name is missing.\nPlease pick one", {}, "it has the configurations code, math; state one as name"),
        (
            "BuilderConfig 'mth' not found. Available: []",
            {"config": "mth"},
            "no configuration 'mth'; it has code, math",
        ),
    ],
)
def test_several_configurations_are_listed(monkeypatch, failure, options, said):
    fake_hub(monkeypatch, {}, failure=ValueError(failure), configs=["code", "math"])
    assert said in error("owner/name", **options)


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A Hub with one dataset of three JSON files, which the real datasets library reads."""
    for name, rows in {"math": ROWS[:1], "code": ROWS[1:2], "more": ROWS[2:]}.items():
        datasets.Dataset.from_list(rows).to_json(tmp_path / f"{name}.jsonl")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: math\n  data_files: math.jsonl\n"
        "- config_name: code\n  data_files: [code.jsonl, more.jsonl]\n---\n"
    )

    def at_home(function):
        return lambda path, **options: function(str(tmp_path), cache_dir=str(tmp_path / "cache"), **options)

    for name in ("load_dataset", "load_dataset_builder"):
        monkeypatch.setattr(datasets, name, at_home(getattr(datasets, name)))
    names = datasets.get_dataset_config_names
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path, revision=None: names(str(tmp_path)))


@pytest.mark.usefixtures("repository")
def test_a_configuration_is_read_by_its_name():
    assert [row.row["a"] for row in read("owner/name", config="code")] == [2, 3]
    assert "it has the configurations math, code; state one as name" in error("owner/name")
    assert "no configuration 'mth'; it has math, code" in error("owner/name", config="mth")


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("data_files", [("m*.jsonl",), ("math.jsonl", "more.jsonl")])
def test_files_of_a_repository(data_files):
    assert [row.row["a"] for row in read("owner/name", data_files=data_files)] == [1, 3]


@pytest.mark.usefixtures("repository")
def test_a_stream_gives_its_first_rows_and_no_more():
    rows = read("owner/name", config="code", first_rows=1)
    assert rows == [SourceRow(0, "owner/name, row 0", ROWS[1])]
    assert "3 rows are asked for, and it has 2" in error("owner/name", config="code", first_rows=3)


@pytest.mark.usefixtures("repository")
def test_json_columns_of_a_stream_are_decoded(tmp_path):
    (tmp_path / "math.jsonl").write_text('{"a": "hi"}\n{"a": {"b": 1}}\n{"a": null}\n')
    assert [row.row for row in read("owner/name", config="math", first_rows=3)] == [
        {"a": "hi"},
        {"a": {"b": 1}},
        {"a": None},
    ]

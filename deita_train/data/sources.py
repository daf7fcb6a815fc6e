"""Raw rows of whatever a dataset's name stands for, each with its position."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import datasets

from deita_train.data.arrow_rows import dataset_rows, parquet_rows
from deita_train.data.csv_files import csv_rows
from deita_train.data.data_file import BROKEN_FILE, DataFile, unreadable
from deita_train.data.hub_rows import choose_split, hub_rows
from deita_train.data.json_files import json_rows
from deita_train.data.places import Place, find_place, require_suffix
from deita_train.data.remote_files import OURS, RemoteFile, remote_files, url_error
from deita_train.data.source_row import SourceRow, numbered_through
from deita_train.data.suffixes import suffix_family
from deita_train.errors import UserError

_READERS = {".json": json_rows, ".csv": csv_rows, ".tsv": csv_rows, ".parquet": parquet_rows}


class ReadOptions(TypedDict, total=False):
    """What of a dataset is read.

    Attributes:
        revision: a Hub commit, tag or branch; only for a Hub id.
        split: of a Hub id, a saved ``DatasetDict`` or files whose names tell it; required if there are several.
        config: the configuration of a Hub dataset.
        data_files: patterns of the files to read in a folder or a Hub dataset.
        first_rows: read this many rows, from the first; a Hub dataset is then streamed.
    """

    revision: str | None
    split: str | None
    config: str | None
    data_files: Sequence[str]
    first_rows: int | None


def iter_rows(dataset: str, **read: Unpack[ReadOptions]) -> Iterator[SourceRow]:
    """Read ``dataset`` row by row, in order.

    Blank lines are skipped but counted in ``where``. Parquet files and datasets are read 1,000 rows at a time.

    Args:
        dataset: a file with one of ``READ_SUFFIXES``, a folder or a pattern of such files, a folder of
            ``save_to_disk``, a URL for fsspec, or a Hub id ("owner/name").
        read: what of it; everything by default.

    Raises:
        UserError: at once if ``dataset`` neither exists nor is a Hub id; while reading if it is damaged, empty,
            malformed, not available from the Hub, or has fewer rows than ``first_rows``.
    """
    split, data_files, first_rows = read.get("split"), read.get("data_files", ()), read.get("first_rows")
    place = find_place(dataset, data_files, split)
    if place.kind == "hub":
        rows = hub_rows(
            dataset,
            revision=read.get("revision"),
            split=split,
            config=read.get("config"),
            data_files=data_files,
            streaming=first_rows is not None,
        )
        return _counted(rows, dataset, first_rows)
    for name, value in (("revision", read.get("revision")), ("configuration", read.get("config"))):
        if value is not None:
            raise UserError(f"{dataset}: {name} {value!r} was given, but only a Hub dataset has one; leave it out")
    rows = _url_rows(dataset, data_files, split) if place.kind == "url" else _local_rows(place, split)
    return _counted(rows, dataset, first_rows)


def _counted(rows: Iterator[SourceRow], dataset: str, first_rows: int | None) -> Iterator[SourceRow]:
    """The rows, or as many as are wanted; refuses a dataset without rows, or with fewer than are wanted."""
    number = 0
    for number, row in enumerate(rows, start=1):
        yield row
        if number == first_rows:
            return
    if number == 0:
        raise UserError(f"{dataset}: holds no rows; check that it was written or downloaded completely")
    if first_rows is not None:
        raise UserError(f"{dataset}: {first_rows} rows are asked for, and it has {number}; state at most {number}")


def _local_rows(place: Place, split: str | None) -> Iterator[SourceRow]:
    assert place.root is not None
    if place.kind == "saved":
        return _saved_rows(place.root, place.dataset, split)
    if place.kind == "file":
        return _file_rows(_local_file(place.root, place.dataset))
    return numbered_through(_file_rows(_local_file(path, str(path))) for path in place.files)


def _local_file(path: Path, label: str) -> DataFile:
    return DataFile(label, require_suffix(path.name, label), lambda: path.open("rb"), path)


def _file_rows(file: DataFile) -> Iterator[SourceRow]:
    return _READERS[suffix_family(file.suffix)](file)


def _url_rows(url: str, data_files: Sequence[str], split: str | None) -> Iterator[SourceRow]:
    files = remote_files(url, data_files, split)
    return numbered_through(_remote_rows(file) for file in files)


def _remote_rows(file: RemoteFile) -> Iterator[SourceRow]:
    try:
        yield from _file_rows(DataFile(file.url, file.suffix, file.open))
    except OURS:
        raise
    except Exception as error:  # each file system has its own
        raise url_error(file.url, error) from error


def _saved_rows(path: Path, label: str, split: str | None) -> Iterator[SourceRow]:
    try:
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.DatasetDict):
            saved = saved[choose_split(list(saved), split, label)]
        elif split is not None:
            raise UserError(f"{label}: split {split!r} was given, but this folder holds one dataset; leave it out")
        yield from dataset_rows(saved, label)
    except UserError:
        raise
    except (*BROKEN_FILE, ValueError, KeyError) as error:
        raise unreadable(label, error) from error

"""What a recipe's `dataset` names: a file, files, a saved folder, a URL or a Hub id. Imports nothing heavy."""

import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn
from urllib.parse import urlsplit

from deita_train.data.suffixes import READ_SUFFIXES, data_suffix, suffix_family
from deita_train.errors import UserError, machine_fault

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_SAVED_MARKS = ("state.json", "dataset_dict.json")
# Files of a dataset's repository that hold no rows (datasets passes over the same).
_NOT_ROWS = frozenset({"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
_WILDCARD = re.compile(r"[*?\[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SPLIT_WORD = "|".join(_SPLITS)
_SPLIT_IN_NAME = re.compile(rf"(?:({_SPLIT_WORD})(?![A-Za-z]).*|.*(?<![A-Za-z])({_SPLIT_WORD}))", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where the rows of a dataset are.

    Attributes:
        dataset: as the user named it.
        kind: one data file, several, a folder of ``save_to_disk``, a URL that fsspec opens, or an id of the Hub.
        root: the file, or the folder that the names of files are relative to; None for a URL and a Hub id.
        files: the local files that are read, in this order.
        data_files: the user's patterns.
        split: the split that the user stated.
    """

    dataset: str
    kind: Literal["file", "files", "saved", "url", "hub"]
    root: Path | None = None
    files: tuple[Path, ...] = ()
    data_files: tuple[str, ...] = ()
    split: str | None = None


def find_place(dataset: str, data_files: Sequence[str] = (), split: str | None = None) -> Place:
    """What ``dataset`` names; local folders are looked through, the network is not asked.

    An existing path comes first, then a URL, a pattern and a Hub id. Of a folder that ``save_to_disk`` did not write,
    all data files in it and below it are read, or those of ``data_files``.

    Args:
        dataset: a file, a folder, a pattern (``part-*.jsonl``), a URL or a Hub id.
        data_files: patterns of files inside a folder, a URL or a Hub dataset.
        split: of files whose names tell it, as ``train-00000-of-00002.parquet`` does.

    Raises:
        UserError: nothing is there, or it is not clear what is to be read.
    """
    path = Path(dataset).expanduser()
    if dataset and path.exists():
        return _local_place(dataset, path, data_files, split)
    if is_url(dataset):
        return Place(dataset, "url", data_files=tuple(data_files), split=split)
    if is_pattern(dataset):
        return _pattern_place(dataset, data_files, split)
    if dataset.startswith((".", "/", "~")) or data_suffix(dataset, READ_SUFFIXES) or not HUB_ID.fullmatch(dataset):
        raise UserError(
            f"{dataset or repr(dataset)} does not exist (looked in {Path.cwd()}). Correct the path. (A dataset of the "
            "Hub is named owner/name.)"
        )
    return Place(dataset, "hub")


def is_url(dataset: str) -> bool:
    """Whether a name is one for fsspec, such as ``s3://bucket/rows.jsonl``."""
    return _URL.match(dataset) is not None


def is_pattern(dataset: str) -> bool:
    """Whether a name stands for all files that match it; in a web address, ``?`` begins the query."""
    named = dataset.partition("?")[0] if dataset.startswith(("http://", "https://")) else dataset
    return _WILDCARD.search(named) is not None


def source_name(dataset: str) -> str:
    """The prefix of ids, from the name that the user wrote; links are not followed.

    A file's name without its suffix, a folder's name, or the Hub id. Of a pattern, the beginning of its last part up to
    the first wildcard (``part`` of ``data/part-*.jsonl``), or else the folder's name (``data`` of ``data/*.jsonl``).
    """
    return _name_and_parents(dataset)[-1]


def distinct_names(sources: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A name for each source of a pool, different where their datasets or what is read of them differ.

    Names that several sources have get what tells them apart: what is read of the dataset (``rows/train`` and
    ``rows/test``), or the fewest parent folders that do (``a/rows`` and ``b/rows``), or both. Sources that nothing
    tells apart keep one name.

    Args:
        sources: each source's dataset and what is read of it, as words (configuration, split, files).
    """
    names = [source_name(dataset) for dataset, _ in sources]
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    for group in places.values():
        choices = _longer_names([sources[place] for place in group])
        distinct = next((choice for choice in choices if len(set(choice)) == len(group)), None)
        if distinct is not None:
            for place, name in zip(group, distinct, strict=True):
                names[place] = name
    return names


def _longer_names(sources: Sequence[tuple[str, Sequence[str]]]) -> Iterator[list[str]]:
    """Names for sources of one name, ever longer."""
    names = [source_name(dataset) for dataset, _ in sources]
    read = ["/".join((name, *words)) for name, (_, words) in zip(names, sources, strict=True)]
    yield names
    yield read
    parents = [_name_and_parents(dataset)[:-1] for dataset, _ in sources]
    for shown in (names, read):
        for number in range(1, max(map(len, parents)) + 1):
            yield ["/".join((*above[-number:], name)) for above, name in zip(parents, shown, strict=True)]


def _name_and_parents(dataset: str) -> tuple[str, ...]:
    """What gives a dataset its name, last, and the folders above it; a Hub id alone."""
    path = Path(dataset).expanduser()
    if not path.exists() and HUB_ID.fullmatch(dataset) and data_suffix(dataset, READ_SUFFIXES) is None:
        return (dataset,)
    *parents, last = _parts(dataset)
    if path.exists():
        return (*parents, last if path.is_dir() else _stem(last))
    name = _fixed_beginning(_stem(last))
    while not name and parents:
        *parents, last = parents
        name = _fixed_beginning(last)
    return (*parents, name)


def _parts(dataset: str) -> tuple[str, ...]:
    """The parts of a path made absolute, or of a URL without its query."""
    if is_url(dataset):
        address = urlsplit(dataset)
        path = address.path if dataset.startswith(("http://", "https://")) else dataset.partition("://")[2]
        return PurePosixPath(path.strip("/")).parts or (address.netloc,)
    path = os.path.abspath(Path(dataset).expanduser())  # noqa: PTH100 - resolve() would follow links
    return tuple(part for part in Path(path).parts if part != os.sep) or (os.sep,)


def _fixed_beginning(part: str) -> str:
    found = _WILDCARD.search(part)
    return part if found is None else part[: found.start()].rstrip("-_.")


def _stem(name: str) -> str:
    suffix = data_suffix(name, READ_SUFFIXES)
    return name if suffix is None else name[: -len(suffix)]


def _local_place(dataset: str, path: Path, data_files: Sequence[str], split: str | None) -> Place:
    if path.is_dir() and any((path / mark).is_file() for mark in _SAVED_MARKS):
        if data_files:
            raise UserError(f"{dataset} was written by save_to_disk and is read whole; leave data_files: out.")
        return Place(dataset, "saved", path)
    if path.is_dir():
        chosen = chosen_files(_names_below(path), dataset, _matched_below(path, data_files), split)
        return Place(dataset, "files", path, tuple(path / name for name in chosen))
    if data_files:
        raise UserError(f"{dataset} is a file; data_files: names files in a folder. Leave it out.")
    require_suffix(path.name, dataset)
    _refuse_split(dataset, split)
    return Place(dataset, "file", path, (path,))


def _pattern_place(dataset: str, data_files: Sequence[str], split: str | None) -> Place:
    if data_files:
        raise UserError(f"{dataset} is a pattern, and so is data_files: name the folder as the dataset.")
    _refuse_split(dataset, split)
    parts = Path(dataset).expanduser().parts
    fixed = next(place for place, part in enumerate(parts) if _WILDCARD.search(part))
    root = Path(*parts[:fixed])
    names = _matching(root, str(Path(*parts[fixed:])))
    chosen = chosen_files([], dataset, {dataset: names}, None)
    return Place(dataset, "files", root, tuple(root / name for name in chosen))


def _refuse_split(dataset: str, split: str | None) -> None:
    if split is not None:
        raise UserError(f"{dataset}: split {split!r} was given, but a file has no splits; leave it out")


def require_suffix(name: str, dataset: str) -> str:
    """The suffix of a data file's name.

    Raises:
        UserError: it is none of ``READ_SUFFIXES``.
    """
    suffix = data_suffix(name, READ_SUFFIXES)
    if suffix is None:
        raise UserError(f"{dataset}: a data file ends in one of {', '.join(READ_SUFFIXES)}; convert or rename it")
    return suffix


def _names_below(folder: Path) -> Iterator[str]:
    """The files in a folder and below it, by their names relative to it; folders behind links once each."""
    seen = {folder.resolve()}
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(where)
        folders[:] = [name for name in folders if (here / name).resolve() not in seen]
        seen.update((here / name).resolve() for name in folders)
        yield from ((here / name).relative_to(folder).as_posix() for name in files)


def _raise(error: OSError) -> NoReturn:
    raise machine_fault(error, str(error.filename)) or error


def _matched_below(folder: Path, patterns: Sequence[str]) -> dict[str, list[str]]:
    return {pattern: _matching(folder, pattern) for pattern in patterns}


def _matching(folder: Path, pattern: str) -> list[str]:
    found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - Path.glob finds hidden files
    if not found and folder.is_dir():
        os.scandir(folder).close()  # glob takes a folder that may not be read for an empty one
    return [Path(name).as_posix() for name in found if (folder / name).is_file()]


def chosen_files(
    names: Iterable[str], dataset: str, matched: Mapping[str, Sequence[str]], split: str | None
) -> list[str]:
    """The data files to read as one dataset, in the order in which they are read.

    Without patterns, these are all that are not hidden, in the order of their names, and they must be of one split: of
    ``split``, or of the only one that their names tell. Files are told apart by ``train-00000-of-00002.parquet``, by a
    split's name at the beginning or the end of a file's, and by a folder of that name. With patterns, the files of one
    pattern come after another's.

    Args:
        names: all files of a folder, relative to it, with "/".
        dataset: the folder as messages name it.
        matched: the files that match each of the user's patterns, if any.
        split: the split to read.

    Raises:
        UserError: there are none, they are of several kinds or splits, or two differ in their suffixes alone.
    """
    if matched:
        chosen = list(dict.fromkeys(name for pattern in matched for name in _of_pattern(pattern, matched, dataset)))
    else:
        chosen = sorted(filter(_holds_rows, names))
    if not chosen:
        raise UserError(
            f"{dataset}: no data files in this folder (they end in one of {', '.join(READ_SUFFIXES)}), and no "
            "state.json of save_to_disk. Name another one."
        )
    if split is not None or not matched:
        chosen = _of_split(chosen, dataset, split)
    _check_one_kind(chosen, dataset)
    return chosen


def _of_pattern(pattern: str, matched: Mapping[str, Sequence[str]], dataset: str) -> list[str]:
    found = sorted(name for name in matched[pattern] if data_suffix(name, READ_SUFFIXES) is not None)
    if not found:
        named = f"{dataset} matches" if pattern == dataset else f"{dataset}: {pattern} of data_files matches"
        raise UserError(f"{named} no data file (looked in {Path.cwd()}). Correct the pattern.")
    return found


def _holds_rows(name: str) -> bool:
    path = PurePosixPath(name)
    is_hidden = any(part.startswith((".", "__")) for part in path.parts)
    return not is_hidden and path.name not in _NOT_ROWS and data_suffix(name, READ_SUFFIXES) is not None


def _of_split(names: Sequence[str], dataset: str, split: str | None) -> list[str]:
    by_split: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in names:
        by_split[_split_of(name)].append(name)
    known = sorted(name for name in by_split if name is not None)
    if split is not None:
        wanted = split if split in known else _SPLITS.get(split, split)
        if wanted not in known:
            raise UserError(
                f"{dataset}: there is no split {split!r}; "
                + (f"it has {', '.join(known)}" if known else "the names of its files tell of none. Leave it out.")
            )
        return by_split[wanted]
    if len(by_split) > 1 and known != ["train"]:
        others = f", and files of none, such as {by_split[None][0]}" if None in by_split else ""
        raise UserError(
            f"{dataset}: its files are of the splits {', '.join(known)}{others}; state one as split, or name files as "
            "data_files"
        )
    return list(names)


def _split_of(name: str) -> str | None:
    """The split that a file's name tells, if any."""
    path = PurePosixPath(name)
    stem = _stem(path.name)
    if shard := _SHARD.fullmatch(stem):
        return shard["split"]
    if found := _SPLIT_IN_NAME.fullmatch(stem):
        return _SPLITS[(found[1] or found[2]).lower()]
    return next((_SPLITS[part.lower()] for part in reversed(path.parts[:-1]) if part.lower() in _SPLITS), None)


def _check_one_kind(names: Sequence[str], dataset: str) -> None:
    families = Counter(suffix_family(require_suffix(name, dataset)) for name in names)
    if len(families) > 1:
        counts = ", ".join(f"{count} {family}" for family, count in families.most_common())
        raise UserError(f"{dataset}: holds files of several kinds ({counts}); name those to read as data_files")
    first: dict[str, str] = {}
    for name in names:
        stem = name[: -len(require_suffix(name, dataset))]
        if stem in first:
            raise UserError(
                f"{dataset}: {first[stem]} and {name} differ in their suffixes alone and may hold the same rows; name "
                "those to read as data_files"
            )
        first[stem] = name

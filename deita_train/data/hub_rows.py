"""Rows of a dataset of the Hub, downloaded or streamed by ``datasets``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets

from deita_train.data.arrow_rows import dataset_rows
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError, is_network_fault, machine_fault

# What datasets and the Hub client raise: not found, gated, offline, unknown split, bad files.
_HUB_FAILURES = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
_SPACE = "free some space, or name a folder on another disk in HF_HOME"


def hub_rows(
    dataset: str,
    *,
    revision: str | None,
    split: str | None,
    config: str | None,
    data_files: Sequence[str],
    streaming: bool,
) -> Iterator[SourceRow]:
    """The rows of a Hub dataset.

    Args:
        dataset: its id.
        revision: a commit, a tag or a branch.
        split: required if there are several.
        config: the name of its configuration; required if there are several and none is the default.
        data_files: patterns of files in its repository, to read in place of what it says itself.
        streaming: whether to fetch the rows as they are read, and keep none on disk.

    Raises:
        UserError: the Hub does not serve it, or there are several splits or configurations.
    """
    stated = {
        "revision": revision,
        "name": config,
        "data_files": list(data_files) or None,
    }
    options = {name: value for name, value in stated.items() if value is not None}
    try:
        known_splits = datasets.load_dataset_builder(dataset, **options).info.splits
        if split is None and known_splits:
            # Before the download, which may be large.
            split = choose_split(list(known_splits), None, dataset)
        loaded = datasets.load_dataset(dataset, split=split, **options, **({"streaming": True} if streaming else {}))
        if isinstance(loaded, dict):
            loaded = loaded[choose_split(list(loaded), None, dataset)]
        yield from dataset_rows(loaded, dataset)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _HUB_FAILURES) and not is_network_fault(error):
            raise
        raise _wrong_config(dataset, options, error) or _hub_error(
            dataset, {**options, "split": split}, error
        ) from error


def choose_split(splits: Sequence[str], split: str | None, label: str) -> str:
    """The split to read: the one that is stated, or the only one.

    Raises:
        UserError: there is none of that name, or several and none is stated.
    """
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None:
        raise UserError(f"{label}: it has the splits {', '.join(splits)}; state one as split")
    if split not in splits:
        raise UserError(f"{label}: there is no split {split!r}; it has {', '.join(splits)}")
    return split


def _wrong_config(dataset: str, options: Mapping[str, Any], error: Exception) -> UserError | None:
    """The error for a configuration that is missing or unknown, with those that there are; None for other failures."""
    if not isinstance(error, ValueError) or not any(text in str(error) for text in ("Config name", "BuilderConfig")):
        return None
    try:
        known = datasets.get_dataset_config_names(dataset, revision=options.get("revision"))
    except (*_HUB_FAILURES, KeyError):
        return None
    if "name" not in options:
        return UserError(f"{dataset}: it has the configurations {', '.join(known)}; state one as name")
    if options["name"] not in known:
        return UserError(f"{dataset}: there is no configuration {options['name']!r}; it has {', '.join(known)}")
    return None


def _hub_error(dataset: str, asked: Mapping[str, Any], error: Exception) -> UserError:
    if fault := machine_fault(error, f"dataset {dataset!r}", space=_SPACE):
        return fault
    stated = "".join(f", {name} {value!r}" for name, value in asked.items() if value)
    if is_network_fault(error):
        advice = "connect to the network or unset HF_HUB_OFFLINE, or download the data and give the path of the file"
    elif isinstance(error, datasets.exceptions.DatasetNotFoundError):
        advice = "correct the name or revision; log in with 'hf auth login' if it is private or gated"
    else:
        advice = "correct the name, or download the data file you want and give its path"
    kind = type(error).__name__
    return UserError(
        f"dataset {dataset!r}{stated}: no such local path, and the Hub cannot serve it ({kind}: {error}); {advice}"
    )

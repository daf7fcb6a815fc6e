"""Tasks of lm-evaluation-harness: found by name, and loaded with their documents and the recipe's settings.

The harness needs twenty seconds to read its 14,000 task files; the folders of the leaderboard and one's own are read at
once. It is imported with this module, which takes seconds.
"""

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lm_eval.tasks
import numpy as np
from lm_eval.tasks import TaskManager

from deita_train.data.quickstart import make_choices
from deita_train.errors import UserError, is_network_fault, raise_machine_fault
from deita_train.evaluation.open_llm import OPEN_LLM_V1, OPEN_LLM_V1_TASKS

# It warns of each overlay that it overrides the original.
logging.getLogger("lm_eval.tasks._index").setLevel(logging.ERROR)
CHOICE_TASK = "quickstart_choice"
CHOICE_QUESTIONS = 200
# Below the harness's folder of tasks.
_LEADERBOARD = ("arc", "hellaswag", "mmlu/default", "truthfulqa")
# Builders of datasets that read local files.
_FILE_BUILDERS = frozenset({"arrow", "csv", "json", "parquet", "text"})
_PUNKT = "punkt_tab"
# Of datasets and of the Hub's client, by name: which library raises them depends on its version.
_NO_DATA = frozenset(
    {"DatasetNotFoundError", "DataFilesNotFoundError", "OfflineModeIsEnabled", "LocalEntryNotFoundError",
     "RepositoryNotFoundError", "GatedRepoError", "ConnectionError", "FileNotFoundError"}
)  # fmt: skip


@dataclass(frozen=True)
class TaskSettings:
    """What a recipe says of its tasks.

    Attributes:
        section: the recipe's section, for messages.
        tasks: names of tasks, groups and tags.
        include: folders with task files of one's own.
        data: local folders in place of datasets of the Hub, by the dataset's name.
        num_fewshot: examples before each question; None for each task's own number.
        seed: of the examples that are drawn.
        folder: where this load may write: generated tasks, and the tables that `datasets` makes of local data.
    """

    section: str
    tasks: Sequence[str]
    include: Sequence[str]
    data: Mapping[str, str]
    num_fewshot: int | None
    seed: int
    folder: Path


@dataclass
class LoadedTasks:
    """Tasks with their documents.

    Attributes:
        tasks: the harness's tasks by name.
        groups: its groups by name.
        by_name: the names of the tasks that each name of the recipe stands for.
    """

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)

    @property
    def as_task_dict(self) -> dict[str, Any]:
        """What the harness's `evaluate` takes."""
        return {"tasks": self.tasks, "groups": self.groups}


def load_tasks(settings: TaskSettings) -> LoadedTasks:
    """Find and load every task; local data is read afresh, data of the Hub from its cache where it is there.

    Raises:
        UserError: a name is unknown, a task's data is not at hand, or a task cannot be run here.
    """
    manager = _manager(settings)
    loaded = LoadedTasks()
    for name in settings.tasks:
        found = _loaded(settings, manager, name)
        twice = sorted(found["tasks"].keys() & loaded.tasks.keys())
        if twice:
            other = next(other for other, tasks in loaded.by_name.items() if twice[0] in tasks)
            raise _error(settings, f"{other} and {name} both bring {twice[0]}; leave one of them out")
        loaded.by_name[name] = list(found["tasks"])
        loaded.tasks |= found["tasks"]
        loaded.groups |= found.get("groups", {})
    for name, task in loaded.tasks.items():
        _refuse_unsuited(settings, name, task)
        _set_shots(settings, task)
    # Some tasks draw by the global generators.
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    return loaded


def _manager(settings: TaskSettings) -> TaskManager:
    """The index of the task files that the names need, with overlays on those that read local data."""
    own = [*settings.include, *(write(settings) for name, write in _OF_THIS_PACKAGE.items() if name in settings.tasks)]
    for folders in _folders(settings.tasks):
        manager = _index(folders, own)
        if not _unknown(settings, manager):
            break
    _refuse_unknown(settings, manager)
    entries = {entry.name: entry for name in settings.tasks for entry in _leaves(manager, name)}
    _refuse_unread(settings, entries)
    for entry in entries.values():
        _refuse_without_punkt(settings, entry)
    overlays = _write_overlays(settings, entries)
    return manager if overlays is None else _index(folders, [*own, overlays])


def _folders(tasks: Sequence[str]) -> Iterator[Sequence[str] | None]:
    """Where in the harness the tasks may be: the leaderboard's folders, then those of their names, then all (None)."""
    tasks_folder = Path(lm_eval.tasks.__file__).parent
    found = [str(tasks_folder / name) for name in _LEADERBOARD]
    yield found
    named = (str(tasks_folder / part) for name in tasks for part in (name, name.partition("_")[0]))
    yield [*found, *dict.fromkeys(folder for folder in named if Path(folder).is_dir())]
    yield None


def _index(folders: Sequence[str] | None, own: Sequence[str]) -> TaskManager:
    """The task files in folders of the harness, None for all, and in one's own, which win."""
    return TaskManager(include_path=[*(folders or ()), *own], include_defaults=folders is None)


def _leaves(manager: TaskManager, name: str) -> Iterator[Any]:
    """The index's entries of the tasks that a name stands for; for a name that it lacks, the name itself."""
    entry = manager.task_index.get(name)
    if entry is None:
        yield name
    elif entry.kind.name == "TAG":
        for tagged in sorted(entry.tags):
            yield from _leaves(manager, tagged)
    elif entry.kind.name == "GROUP":
        yield from _members(manager, entry.cfg["task"])
    else:
        yield entry


def _members(manager: TaskManager, members: Any) -> Iterator[Any]:
    """The same of a group's members; a task that is defined inside the group is none of the index."""
    for member in members if isinstance(members, list) else [members]:
        if isinstance(member, str):
            yield from _leaves(manager, member)
        elif "group" in member and member["group"] not in manager.task_index:
            yield from _members(manager, member["task"])
        else:
            name = member.get("group") or member["task"]
            yield from _leaves(manager, name) if name in manager.task_index else ()


def _unknown(settings: TaskSettings, manager: TaskManager) -> list[str]:
    return [leaf for name in settings.tasks for leaf in _leaves(manager, name) if isinstance(leaf, str)]


def _refuse_unknown(settings: TaskSettings, manager: TaskManager) -> None:
    unknown = _unknown(settings, manager)
    if unknown:
        near = get_close_matches(unknown[0], manager.all_tasks, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise _error(
            settings,
            f"{unknown[0]} is no task, group or tag of lm-evaluation-harness{hint}, nor of {settings.section}.include; "
            "`lm_eval ls tasks` lists them. A task file that cannot be read counts as missing",
        )


def _refuse_unread(settings: TaskSettings, entries: Mapping[str, Any]) -> None:
    """Refuse a local copy of a dataset that no task reads."""
    read = {str(entry.cfg.get("dataset_path")) for entry in entries.values()}
    unread = sorted(settings.data.keys() - read)
    if unread:
        raise UserError(
            f"{settings.section}.data: no task reads {unread[0]}; the tasks read {', '.join(sorted(read))}. Correct "
            "the name, or leave it out."
        )


def _refuse_without_punkt(settings: TaskSettings, entry: Any) -> None:
    """Refuse a task that counts sentences where nltk's data for it is missing; loading it would ask the network."""
    folder = entry.yaml_path.parent if entry.yaml_path else None
    if folder is None or not any(_PUNKT in file.read_text(encoding="utf-8") for file in folder.glob("*.py")):
        return
    import nltk

    try:
        nltk.data.find(f"tokenizers/{_PUNKT}")
    except LookupError:
        raise _error(
            settings,
            f"{entry.name} counts sentences by nltk's {_PUNKT}, which is not on this machine. Install it, where there "
            f"is a network: python -m nltk.downloader {_PUNKT}",
        ) from None


def _write_overlays(settings: TaskSettings, entries: Mapping[str, Any]) -> str | None:
    """Task files that include the originals and change where their data comes from; None if none is needed.

    `datasets` knows a local file again by its path and time alone, so its tables of local data are kept in a folder of
    this load, not in the user's cache.
    """
    folder = settings.folder / "overlays"
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name, entry in entries.items():
        path, kwargs = entry.cfg.get("dataset_path"), entry.cfg.get("dataset_kwargs") or {}
        place = settings.data.get(path, path)
        if place is None or not (place in _FILE_BUILDERS or Path(place).expanduser().exists()):
            continue
        changed = {"dataset_path": place, "dataset_kwargs": {**kwargs, "cache_dir": str(settings.folder / "datasets")}}
        text = json.dumps({"include": str(entry.yaml_path), "task": name, **changed})
        (folder / f"{written}.yaml").write_text(text, encoding="utf-8")  # JSON is YAML
        written += 1
    return str(folder) if written else None


def _write_choice_task(settings: TaskSettings) -> str:
    """The generated task's file and its questions; the folder."""
    folder = settings.folder / CHOICE_TASK
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_choices(CHOICE_QUESTIONS, settings.seed)
    data = folder / "questions.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    task = {
        "task": CHOICE_TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
    return str(folder)


def _write_open_llm(settings: TaskSettings) -> str:
    """A group of the harness's own tasks with the leaderboard's shots; the folder of its file."""
    folder = settings.folder / OPEN_LLM_V1
    folder.mkdir(parents=True, exist_ok=True)
    members = [{task.kind: task.name, "num_fewshot": task.num_fewshot} for task in OPEN_LLM_V1_TASKS]
    (folder / "group.yaml").write_text(json.dumps({"group": OPEN_LLM_V1, "task": members}), encoding="utf-8")
    return str(folder)


_OF_THIS_PACKAGE = {CHOICE_TASK: _write_choice_task, OPEN_LLM_V1: _write_open_llm}


def _loaded(settings: TaskSettings, manager: TaskManager, name: str) -> Mapping[str, Any]:
    """The tasks and groups of one name.

    Raises:
        UserError: they cannot be loaded, with the reason.
    """
    try:
        found: Mapping[str, Any] = manager.load([name])
    except Exception as error:  # task files are programs: what they raise is anything
        raise _not_loaded(settings, manager, name, error) from error
    return found


def _not_loaded(settings: TaskSettings, manager: TaskManager, name: str, error: Exception) -> UserError:
    """What kept a task from being loaded, and what to do."""
    causes = list(_causes(error))
    said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(". ")
    if is_network_fault(error) or any(type(cause).__name__ in _NO_DATA for cause in causes):
        read = _hub_data(manager, name)
        if not read:
            return _error(settings, f"the data of {name} is not there ({said}). Correct the path in its task file")
        return _error(
            settings,
            f"the data of {name} is not at hand: {', '.join(read)} is not in this machine's cache, and the Hub does "
            f"not give it ({said}). Run `deita-train validate` where there is a network and copy HF_HOME here, or "
            f"state a local copy under {settings.section}.data",
        )
    raise_machine_fault(error, settings.folder)
    missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
    if missing is not None:
        return _error(settings, f"{name} needs a package that is not installed ({missing}). Install it")
    return _error(settings, f"{name} cannot be loaded ({said}). Correct its task file or its data")


def _hub_data(manager: TaskManager, name: str) -> list[str]:
    """The datasets of the Hub that a name reads."""
    entries = list(_leaves(manager, name))
    paths = {str(entry.cfg.get("dataset_path")) for entry in entries}
    return sorted(path for path in paths if path not in _FILE_BUILDERS and not Path(path).expanduser().exists())


def _causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def _refuse_unsuited(settings: TaskSettings, name: str, task: Any) -> None:
    """Refuse a task that no causal language model of texts can answer, and one that executes what is answered."""
    if getattr(task, "UNSAFE_CODE", False):
        raise _error(settings, f"{name} executes code that the model writes, which is not done here; leave it out")
    if getattr(task, "MULTIMODAL", False):
        raise _error(settings, f"{name} asks about pictures or sounds, and the models here read text; leave it out")


def _set_shots(settings: TaskSettings, task: Any) -> None:
    """Set the examples before each question, as the harness does: a task that states 0 keeps it."""
    own = task.get_config("num_fewshot")
    if settings.num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=settings.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=settings.seed)


def _error(settings: TaskSettings, message: str) -> UserError:
    return UserError(f"{settings.section}.tasks: {message}.")

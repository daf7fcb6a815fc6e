"""What a recipe reads from outside: data, models, templates, launch files.

Each has an identity, which is hashed into the keys of what is made from it, and a location, which is not.
"""

import json
import re
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deita_train.data.places import HUB_ID, Place, find_place, is_url, source_name
from deita_train.data.remote_files import file_states, remote_files
from deita_train.errors import UserError
from deita_train.models.adapter_files import is_adapter, locate_base
from deita_train.plan.hub_commits import NotOnHub, resolve_commit
from deita_train.plan.launch import Launch, gpu_of_one_process, resolve_launch
from deita_train.plan.node import UNRESOLVED
from deita_train.plan.task_files import files_outside
from deita_train.recipe.data_sections import Origin
from deita_train.recipe.model_sections import Dtype
from deita_train.recipe.shipped import files_of_yours
from deita_train.recipe.wording import nearest
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.store.keys import ContentHashes
from deita_train.store.model_links import LINKED

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
# By this file transformers itself knows a checkpoint of a training.
_TRAINER_STATE = "trainer_state.json"
_INSTALL_EVAL = "pip install 'deita-train[eval]'"
# Of a package on the machine that a plan is for.
_UNKNOWN_VERSION = "unknown"


class MissingSection(UserError):
    """A section reads what the recipe does not have, or what could not be planned."""


class Inputs:
    """Resolves what a recipe names, once per start; hashes and Hub revisions are remembered on disk."""

    def __init__(
        self,
        store_dir: Path,
        run_dir: Path,
        recipe_path: Path,
        planned_gpus: int | None = None,
        problem: Callable[[str, str], UserError] | None = None,
        *,
        may_be_unresolved: bool = False,
    ) -> None:
        """Start with what earlier starts have remembered.

        Args:
            store_dir: the store, which keeps the hashes.
            run_dir: the run's folder, which keeps the Hub revisions.
            recipe_path: the recipe, as messages name it.
            planned_gpus: GPUs of each machine that will run it; None counts this machine's.
            problem: the error for a dotted path and a message; by default it names no line.
            may_be_unresolved: whether what only the network could tell becomes `UNRESOLVED` instead of an error.
        """
        self._hashes = ContentHashes(store_dir / "content_hashes.json")
        self.answers_dir = store_dir.parent / "answers"
        self._pins_file = run_dir / "revisions.json"
        self._pins: dict[str, str] = read_json(self._pins_file) if self._pins_file.exists() else {}
        self._recipe_path = recipe_path
        self._planned_gpus = planned_gpus
        self._problem = problem
        self._models: dict[str, None] = {}
        self._may_be_unresolved = may_be_unresolved
        self.unresolved: dict[str, None] = {}

    def leave_unresolved(self, what: str) -> bool:
        """Whether something that only the network could tell may stay open; it is then listed in `unresolved`."""
        if self._may_be_unresolved:
            self.unresolved[what] = None
        return self._may_be_unresolved

    def check_trusted(self, names: Collection[str]) -> None:
        """Refuse a model under `trust_remote_code` that no section names. Call after the graphs are built."""
        for name in names:
            if name not in self._models:
                near = nearest(name, list(self._models))
                hint = f" (did you mean {near!r}?)" if near else ""
                there = f"the recipe has {', '.join(self._models)}" if self._models else "the recipe names none"
                raise self.error("trust_remote_code", f"no section names a model {name}{hint}; {there}. Leave it out.")

    def save(self) -> None:
        """Keep the hashes, and the Hub commits that this run is bound to."""
        self._hashes.save()
        if self._pins:
            self._pins_file.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(self._pins_file, self._pins)

    def error(self, where: str, message: str) -> UserError:
        """A user error that names the recipe, the line where that is known, and the dotted path."""
        if self._problem is not None:
            return self._problem(where, message)
        return UserError(f"{self._recipe_path}: {where}: {message}")

    def missing(self, section: str, wanted: str) -> "MissingSection":
        """The error for a section that reads what the recipe does not have."""
        text = f"needs {wanted}, and the recipe has none. Add it, or leave {section}: out."
        return MissingSection(str(self.error(section, text)))

    def source(self, source: Origin, *, default_seed: int, where: str) -> tuple[dict, dict]:
        """Identity and location of a data source. Generated data is its own identity: what, how much, which seed."""
        shape = {name: value for name, value in source.model_dump().items() if name in _SHAPE_FIELDS}
        if source.builtin is not None:
            seed = source.seed if source.seed is not None else default_seed
            seed = 0 if source.builtin == _NOT_GENERATED else seed
            return {"builtin": source.builtin, "rows": source.rows, "seed": seed, **shape}, {}
        assert source.dataset is not None
        place = self._place(source.dataset, f"{where}.dataset", source.patterns, source.split)
        if place.kind == "hub":
            commit = self._commit("dataset", source.dataset, source.revision, where, "dataset")
            identity: dict[str, Any] = {"hub": source.dataset, "revision": commit}
        else:
            self._refuse_hub_fields(source, where)
            identity = self._content(place, f"{where}.dataset")
            if place.kind != "url":
                named = source_name(source.dataset) if place.kind == "files" else Path(source.dataset).expanduser().name
                identity["name"] = named
                self._refuse_stream(source, where)
        # What was not there when the first artefacts were made is in the key only where it is stated.
        stated = {
            "config": source.name,
            "data_files": source.patterns or None,
            "first_rows": source.sample if source.streaming else None,
        }
        identity |= {"split": source.split, **{name: value for name, value in stated.items() if value is not None}}
        return {**identity, **shape}, {"dataset": self._location(place)}

    def file(self, name: str, where: str) -> tuple[dict, str]:
        """Identity and location of a table: as of a data source, but not of the Hub."""
        place = self._place(name, where)
        if place.kind == "hub":
            raise self.error(where, f"{name} does not exist (looked in {Path.cwd()}). Correct the path.")
        return self._content(place, where), self._location(place)

    def folder(self, name: str, where: str) -> tuple[dict, str]:
        """Identity and location of a folder: every file in it counts."""
        path = Path(name).expanduser()
        if not path.is_dir():
            raise self.error(where, f"{name} is no folder (looked in {Path.cwd()}). Correct the path.")
        return {"content": self._hashes.of(path)}, str(path.resolve())

    def task_folder(self, name: str, where: str) -> tuple[dict, str]:
        """The same of a folder with task files of lm-evaluation-harness, and of the local files that they name."""
        identity, location = self.folder(name, where)
        outside = files_outside(Path(location))
        files = {"files": [self._hashes.of(path) for path in outside]} if outside else {}
        return {**identity, **files}, location

    def harness(self, where: str, *, optional: bool) -> str | None:
        """The installed version of lm-evaluation-harness.

        Args:
            where: the dotted path of the section.
            optional: whether the section is left out where it is not installed.

        Returns:
            The version; None where it is left out, of which a line on standard error tells.

        Raises:
            UserError: it is not installed; what another machine has is unknown here.
        """
        try:
            return version("lm-eval")
        except PackageNotFoundError:
            pass
        if optional:
            sys.stderr.write(f"{where} is left out: lm-eval is not installed ({_INSTALL_EVAL}).\n")
            return None
        if self._planned_gpus is not None:
            return _UNKNOWN_VERSION
        raise self.error(where, f"needs lm-eval: {_INSTALL_EVAL}.")

    def _place(self, name: str, where: str, data_files: Sequence[str] = (), split: str | None = None) -> Place:
        try:
            return find_place(name, data_files, split)
        except UserError as error:
            raise self.error(where, f"{error}{files_of_yours(self._recipe_path, where)}") from error

    def _content(self, place: Place, where: str) -> dict[str, Any]:
        """What changes with the content of local files or of files behind a URL.

        Local files count by their bytes, and several by their names in their folder too. What is behind a URL is not
        read here: it counts by the URL, the size and what the file system says of the content (``RemoteFile.state``).
        """
        if place.kind in ("file", "saved"):
            assert place.root is not None
            return {"content": self._hashes.of(place.root)}
        if place.kind == "files":
            assert place.root is not None
            return {"content": self._hashes.of_files(place.root, place.files)}
        try:
            files = remote_files(place.dataset, place.data_files, place.split)
            return {"url": place.dataset, "files": file_states(files)}
        except UserError as error:
            if self.leave_unresolved(f"the files of {place.dataset}"):
                return {"url": place.dataset, "revision": UNRESOLVED}
            raise self.error(where, str(error)) from error

    def _location(self, place: Place) -> str:
        return str(Path(place.dataset).expanduser()) if place.kind not in ("hub", "url") else place.dataset

    def _refuse_hub_fields(self, source: Origin, where: str) -> None:
        assert source.dataset is not None
        self._refuse_revision(source.revision, source.dataset, where)
        if source.name is not None:
            raise self.error(
                f"{where}.name",
                f"{source.dataset} is not a dataset of the Hub: it has no configurations. Leave name: out.",
            )

    def _refuse_stream(self, source: Origin, where: str) -> None:
        if source.streaming:
            raise self.error(
                f"{where}.streaming", f"{source.dataset} is local, and nothing is downloaded. Leave streaming: out."
            )

    def model(
        self, name: str, revision: str | None, where: str, *, adapters: bool, field: str = "model"
    ) -> tuple[dict, str]:
        """Identity and location of a model folder or a Hub model.

        Args:
            name: a folder or a Hub id.
            revision: a branch, a tag or a commit of the Hub; None for its main branch.
            where: the dotted path of the section.
            adapters: whether the folder may hold an adapter.
            field: the section's field that names the model.
        """
        self._models[name] = None
        path = Path(name).expanduser()
        if path.is_dir():
            self._refuse_revision(revision, name, where)
            if is_adapter(path):
                return self._adapter(path, f"{where}.{field}", allowed=adapters), str(path.resolve())
            if not (path / "config.json").exists():
                raise self.error(
                    f"{where}.{field}",
                    f"{name} is a folder without config.json: not a transformers model. Name the folder that holds it.",
                )
            self._check_json(path / "config.json", f"{where}.{field}")
            return {"content": self._model_content(path, f"{where}.{field}")}, str(path.resolve())
        if not HUB_ID.fullmatch(name):
            if path.name in LINKED and path.parent.name:
                raise self.error(
                    f"{where}.{field}",
                    f"{name} is not there (looked in {Path.cwd()}): the run {path.parent.name} has not made it yet. "
                    "Run its recipe first, or correct the path.",
                )
            raise self.error(
                f"{where}.{field}",
                f"{name} is neither a folder (looked in {Path.cwd()}) nor a Hub id. Correct the path.",
            )
        return {"hub": name, "revision": self._commit("model", name, revision, where, field)}, name

    def _model_content(self, folder: Path, where: str) -> str:
        """The hash of a model folder; of a checkpoint, without the trainer's state."""
        if not (folder / _TRAINER_STATE).is_file():
            return self._hashes.of(folder)
        from deita_train.models.published_files import model_files

        files = model_files(folder)
        if not any(path.suffix == ".safetensors" for path in files):
            raise self.error(
                where,
                f"{folder} is a checkpoint without a model in safetensors, as ZeRO-3 without zero3_save_16bit_model "
                "and FSDP with SHARDED_STATE_DICT write it. Name another checkpoint or model.",
            )
        return self._hashes.of_files(folder, files)

    def _check_json(self, file: Path, where: str) -> None:
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise self.error(where, f"{file} is not valid JSON: {error}. Copy or download the model again.") from error

    def _adapter(self, path: Path, where: str, *, allowed: bool) -> dict:
        """The identity of an adapter is also that of its base."""
        if not allowed:
            raise self.error(
                where,
                f"{path} is an adapter, and a training starts from a whole model. Merge it into its base first: "
                "merge_adapter: true where it is trained, or peft's merge_and_unload.",
            )
        if not (path / "tokenizer_config.json").exists():
            raise self.error(where, f"{path} has no tokenizer; copy its base's tokenizer files there.")
        try:
            base = locate_base(path)
        except UserError as error:
            raise self.error(where, str(error)) from error
        local = {"content": self._hashes.of(base.folder)} if base.folder is not None else {}
        return {
            "content": self._model_content(path, where),
            "base": local or {"hub": base.hub, "revision": base.revision},
        }

    def launch(self, name: str | None, where: str) -> dict[str, Any]:
        """The launch that a stage will have: file, world size and distributed type."""
        try:
            return resolve_launch(name, self._planned_gpus).as_dict()
        except UserError as error:
            raise self.error(where, str(error)) from error

    def optional_launch(self, name: str | None, where: str) -> dict[str, Any] | None:
        """The launch of a stage that can run without one: as stated, else one GPU if there is one, else None."""
        name = gpu_of_one_process(self._planned_gpus) if name is None else name
        return None if name is None else self.launch(name, where)

    @property
    def plans_elsewhere(self) -> bool:
        """Whether the plan is for another machine, of which it is unknown what is installed."""
        return self._planned_gpus is not None

    def dtype(self, stated: Dtype, launch: dict[str, Any]) -> str:
        """The dtype of a forward pass: float32 on a CPU and bfloat16 on a GPU unless the recipe states one."""
        if stated != "auto":
            return stated
        return "float32" if Launch.from_dict(launch).use_cpu else "bfloat16"

    def check_reporting(self, services: Collection[str]) -> None:
        """Refuse `report_to:` of what is not installed here."""
        for name in services:
            spec = None if name == "none" else find_spec(name)
            # A folder of that name in the working folder is no package; what another machine has is unknown here.
            missing = name != "none" and (spec is None or spec.origin is None)
            if missing and not self.plans_elsewhere:
                raise self.error("report_to", f"{name} is not installed: pip install 'deita-train[{name}]'.")

    def _refuse_revision(self, revision: str | None, name: str, where: str) -> None:
        if revision is not None:
            what = "a URL" if is_url(name) else "local"
            raise self.error(f"{where}.revision", f"{name} is {what}: it has no revisions. Leave revision: out.")

    def _commit(self, kind: str, name: str, revision: str | None, where: str, field: str) -> str:
        """The commit of a Hub id, fixed for this run at its first start."""
        if revision is not None and _COMMIT.match(revision):
            return revision
        pin = f"{kind}:{name}@{revision or 'main'}"
        if pin not in self._pins:
            try:
                commit = resolve_commit(kind, name, revision)
            except NotOnHub as error:
                raise self.error(f"{where}.{field}", str(error)) from error
            if commit is None and self.leave_unresolved(f"the commit of the {kind} {name} at {revision or 'main'}"):
                return UNRESOLVED
            if commit is None:
                raise self.error(
                    f"{where}.{field}",
                    f"{name} is not a local path, and the Hub does not answer for {kind} {name} at "
                    f"{revision or 'main'}. Check the name and the network, or state revision: with a commit that the "
                    f"local cache holds.{self._yours(name, f'{where}.{field}')}",
                )
            self._pins[pin] = commit
        return self._pins[pin]

    def _yours(self, name: str, where: str) -> str:
        """What helps in a shipped recipe where a name without an owner stands for a folder of the user's."""
        return "" if "/" in name else files_of_yours(self._recipe_path, where)


_NOT_GENERATED = "everyday"  # the same rows by any seed
_SHAPE_FIELDS = {"format", "roles", "instruction_share", "label", "rank_within_instruction"}

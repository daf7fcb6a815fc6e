"""What a run has for the Hub: a tuned model or the rows of a selection, each with its card."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deita_train.errors import UserError
from deita_train.models.adapter_files import BASE_NAME, is_adapter, read_adapter
from deita_train.plan.plan import store_folder
from deita_train.report.cards.card_names import FOLDER, card_file
from deita_train.store.artefacts import Store
from deita_train.store.rehearsals import is_rehearsal
from deita_train.store.run_record import RunRecord

CARD = "README.md"
# The stages, with what they leave in words.
MODELS = {"sft": "model", "dpo": "model"}
DATASETS = {"select": "selection", "dpo_pairs": "selection of pairs"}
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Upload:
    """What to upload.

    Attributes:
        artefact: the artefact's id.
        run: the run's name.
        card: the text of the card.
        ready: files that are uploaded as they are, by their names in the repository: those of a model.
        table: the folder of a table whose rows are uploaded: that of a selection.
    """

    artefact: str
    run: str
    card: str
    ready: Mapping[str, Path]
    table: Path | None = None

    @property
    def repo_type(self) -> Literal["model", "dataset"]:
        """The type of the repository."""
        return "model" if self.table is None else "dataset"

    def files(self, folder: Path) -> dict[str, Path]:
        """The files by their names in the repository, without the card; those of a dataset are written to `folder`."""
        if self.table is None:
            return dict(self.ready)
        from datasets import load_from_disk

        from deita_train.data.writing import write_shards

        shards = write_shards(load_from_disk(str(self.table)), folder / "data")
        return {f"data/{path.name}": path for path in shards}

    def write(self, folder: Path) -> None:
        """Write the files and the card to a new folder."""
        folder.mkdir()
        for name, path in self.files(folder).items():
            if path != folder / name:  # as those of a model
                shutil.copyfile(path, folder / name)
        (folder / CARD).write_text(self.card, encoding="utf-8")


def find_upload(run_dir: Path, stage: str, cell: str | None) -> Upload:
    """What `stage` left in the base run, or in a sweep's `cell` (label or number).

    Raises:
        UserError: there is no such run, stage, cell or artefact; the run is a rehearsal; the report has no card of it;
            or it is an adapter on a base that only this machine has.
    """
    record = RunRecord.read(run_dir)
    if is_rehearsal(run_dir):
        raise UserError(
            f"{run_dir} is a rehearsal: its models are miniatures, and what they made means nothing. Use the real "
            "run's folder."
        )
    artefact = _artefact(record, run_dir, stage, cell)
    store = Store(store_folder(run_dir))
    if not store.has(artefact):
        noun = {**MODELS, **DATASETS}[stage]
        raise UserError(f"{run_dir}: the {noun} of {stage} ({artefact}) is not made yet. Run the recipe first.")
    model = store.path(artefact) / "model"
    if stage in MODELS:
        _check_base(model)
    card = _card(run_dir, stage, artefact, store.manifest(artefact).content_digest)
    if stage in DATASETS:
        return Upload(artefact, record.name, card, {}, store.path(artefact) / "data")
    return Upload(artefact, record.name, card, {path.name: path for path in _model_files(model)})


def _artefact(record: RunRecord, run_dir: Path, stage: str, chosen: str | None) -> str:
    """The id of the artefact that `stage` left in the chosen cell."""
    cell = record.base_cell
    if chosen is not None:
        numbered = list(enumerate(record.cells))
        found = next((one for number, one in numbered if chosen in (one.label, str(number))), None)
        if found is None:
            named = "; ".join(f"{number} {one.label!r}" for number, one in numbered[:20])
            raise UserError(
                f"--cell {chosen}: {run_dir} has no such cell; its first ones by number and label: {named}."
            )
        cell = found
    if stage not in cell.stages:
        there = [label for label in (*MODELS, *DATASETS) if label in cell.stages]
        raise UserError(
            f"--stage {stage}: {run_dir} has no such stage; of those that leave something for the Hub it has "
            f"{' and '.join(there) or 'none'}."
        )
    return cell.stages[stage]


def _check_base(model: Path) -> None:
    """Refuse an adapter whose base is a folder on this machine."""
    if not is_adapter(model):
        return
    config = read_adapter(model)
    base, revision = Path(config[BASE_NAME]), config.get("revision") or ""
    if base.is_absolute() or not _COMMIT.fullmatch(revision):
        raise UserError(
            f"{model} is an adapter on {base}, a folder that nobody else has: it could not be loaded from the Hub. "
            "State merge_adapter: true beside peft: and run again, or train on a base of the Hub."
        )


def _card(run_dir: Path, stage: str, artefact: str, digest: str) -> str:
    """The text of the card, which holds the artefact's content digest."""
    folder = run_dir / "report" / FOLDER
    names = [card_file(stage, artefact, is_base=is_base) for is_base in (True, False)]
    for path in (folder / name for name in names):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if digest in text:
            return text
    raise UserError(
        f"{folder} has no card of {artefact}: the run has no report, or one that is older. Write it: "
        f"deita-train report {run_dir}"
    )


def _model_files(model: Path) -> list[Path]:
    from deita_train.models.published_files import unexpected_files

    unexpected = unexpected_files(model)
    if unexpected:
        named = ", ".join(unexpected)
        raise UserError(f"{model} holds files that are not part of a published model: {named}. Remove them.")
    return sorted(model.iterdir())

"""`deita-train push`: uploads a tuned model with its card to the Hub, and no other file."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.models.adapter_files import BASE_NAME, is_adapter, read_adapter
from deita_train.plan.plan import store_folder
from deita_train.report.cards.card_names import FOLDER, card_file, name_place
from deita_train.store.artefacts import Store
from deita_train.store.rehearsals import is_rehearsal
from deita_train.store.run_record import RunRecord

CARD = "README.md"
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Files that decide which weights are loaded: another model's must not stay beside this one.
_WEIGHTS = re.compile(r"[^/]+\.safetensors|model\.safetensors\.index\.json|adapter_config\.json|pytorch_model.*\.bin")


@dataclass(frozen=True)
class Upload:
    """What to upload: an artefact's files by their names in the repository, and the text of its card."""

    artefact: str
    run: str
    files: Mapping[str, Path]
    card: str


def find_upload(run_dir: Path, stage: str, cell: str | None) -> Upload:
    """The model that `stage` left in the base run, or in a sweep's `cell` (label or number).

    Raises:
        UserError: there is no such run, stage, cell or model; the run is a rehearsal; the report has no card of it; or
            it is an adapter on a base that only this machine has.
    """
    record = RunRecord.read(run_dir)
    if is_rehearsal(run_dir):
        raise UserError(f"{run_dir} is a rehearsal: its models are miniatures and mean nothing. Push the real run's.")
    artefact = _artefact(record, run_dir, stage, cell)
    store = Store(store_folder(run_dir))
    if not store.has(artefact):
        raise UserError(f"{run_dir}: the model of {stage} ({artefact}) is not made yet. Run the recipe first.")
    model = store.path(artefact) / "model"
    _check_base(model)
    card = _card(run_dir, stage, artefact, store.manifest(artefact).content_digest)
    return Upload(artefact, record.name, {path.name: path for path in _model_files(model)}, card)


def push(upload: Upload, repo: str, *, private: bool) -> str:
    """Upload a model and its card in one commit, creating the repository if needed.

    Returns:
        The address of the repository.

    Raises:
        UserError: there is no login, no network or no permission to write; a repository that must be private is
            public; or it holds the weights of another model.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not _REPO.fullmatch(repo):
        raise UserError(f"--repo {repo}: a repository is named user/name, or organisation/name.")
    if get_token() is None:
        raise UserError(
            "not logged in to the Hub: `hf auth login` once, or the variable HF_TOKEN, with a token that may write."
        )
    api = HfApi(library_name="deita-train", library_version=version("deita-train"))
    contents: dict[str, bytes | Path] = {CARD: name_place(upload.card, repo).encode(), **upload.files}
    with _hub_errors(repo):
        address = str(api.create_repo(repo, private=private or None, exist_ok=True))
        if private and not api.repo_info(repo).private:
            raise UserError(
                f"--private: {repo} is there already and is public. Name another one, or leave --private out."
            )
        _refuse_other_weights(repo, set(api.list_repo_files(repo)) - set(contents))
        api.create_commit(
            repo,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()],
            commit_message=f"{upload.artefact} of run {upload.run}, by deita-train {version('deita-train')}",
        )
    return address


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
        there = [label for label in ("sft", "dpo") if label in cell.stages]
        raise UserError(f"--stage {stage}: {run_dir} has no such stage; it tunes {' and '.join(there) or 'no model'}.")
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
    """The text of the model's card, which holds the artefact's content digest."""
    folder = run_dir / "report" / FOLDER
    names = [card_file(stage, artefact, is_base=is_base) for is_base in (True, False)]
    for path in (folder / name for name in names):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if digest in text:
            return text
    raise UserError(
        f"{folder} has no card of {artefact}: the run has no report, or one that is older than the model. Write it: "
        f"deita-train report {run_dir}"
    )


def _model_files(model: Path) -> list[Path]:
    from deita_train.models.published_files import unexpected_files

    unexpected = unexpected_files(model)
    if unexpected:
        named = ", ".join(unexpected)
        raise UserError(f"{model} holds files that are not part of a published model: {named}. Remove them.")
    return sorted(model.iterdir())


def _refuse_other_weights(repo: str, others: set[str]) -> None:
    found = sorted(name for name in others if _WEIGHTS.fullmatch(name))
    if found:
        raise UserError(
            f"{repo} holds weights that are not part of this model, and could be loaded in its place: "
            f"{', '.join(found[:5])}{' and more' if len(found) > 5 else ''}. Remove them there, or name another one."
        )


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn the Hub's errors into messages that say what to do."""
    # HTTPError is that of the library's HTTP client, which has changed between versions.
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise UserError(f"--repo {repo}: {error}") from error
    except OfflineModeIsEnabled as error:
        raise UserError("the Hub is switched off by HF_HUB_OFFLINE; unset it for this command.") from error
    except HfHubHTTPError as error:
        raise UserError(f"{repo}: {_refused(error)}") from error
    except (HTTPError, OSError) as error:
        raise UserError(
            f"the Hub does not answer ({type(error).__name__}: {error}). Check the network, then run the same command "
            "again."
        ) from error


def _refused(error: Any) -> str:
    code = error.response.status_code
    said = " ".join((error.server_message or str(error)).split())
    advice = {
        401: "the Hub does not know the token: log in again (hf auth login)",
        403: "the token may not write there: name a repository of your own, or use a token with permission to write",
        404: "there is no such user or repository, or the token may not see it",
        409: "the repository was changed in the meantime: run the command again",
        413: "a file is larger than the Hub takes",
        429: "too many requests: wait a while, then run the command again",
    }
    return f"the Hub refuses with {code} ({said}); {advice.get(code, 'run the command again later')}."

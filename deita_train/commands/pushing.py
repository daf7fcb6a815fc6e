"""`deita-train push`: uploads a tuned model or the rows of a selection with its card to the Hub, and no other file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deita_train.commands.uploads import CARD, Upload
from deita_train.errors import UserError
from deita_train.report.cards.card_names import name_place

_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# Files that decide which weights are loaded: another model's must not stay beside this one.
_WEIGHTS = re.compile(r"[^/]+\.safetensors|model\.safetensors\.index\.json|adapter_config\.json|pytorch_model.*\.bin")
# Files of rows: those of another dataset, or of an earlier selection in more shards, must not stay beside these.
_ROWS = re.compile(r".+\.(parquet|arrow|jsonl?|csv|tsv|gz|zst|bz2|xz|zip|tar)")


def upload_to_hub(upload: Upload, repo: str, folder: Path, *, private: bool) -> str:
    """Upload a model or a dataset and its card in one commit, creating the repository if needed.

    Args:
        upload: what to upload.
        repo: user/name.
        folder: where a dataset is written first, in a folder of its own that is removed afterwards.
        private: whether the repository must be private.

    Returns:
        The address of the repository.

    Raises:
        UserError: there is no login, no network or no permission to write; a repository that must be private is
            public; or it holds the weights of another model, or other data.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not _REPO.fullmatch(repo):
        raise UserError(f"--repo {repo}: a repository is named user/name, or organisation/name.")
    if get_token() is None:
        raise UserError(
            "not logged in to the Hub: `hf auth login` once, or the variable HF_TOKEN, with a token that may write."
        )
    api = HfApi(library_name="deita-train", library_version=version("deita-train"))
    kind = upload.repo_type
    with _hub_errors(repo):
        address = str(api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True))
        if private and not api.repo_info(repo, repo_type=kind).private:
            raise UserError(
                f"--private: {repo} is there already and is public. Name another one, or leave --private out."
            )
    with TemporaryDirectory(prefix=".push-", dir=folder) as written:
        contents: dict[str, bytes | Path] = {CARD: name_place(upload.card, repo).encode()}
        contents |= upload.files(Path(written))
        with _hub_errors(repo):
            _refuse_others(upload, repo, set(api.list_repo_files(repo, repo_type=kind)) - set(contents))
            api.create_commit(
                repo,
                [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()],
                commit_message=f"{upload.artefact} of run {upload.run}, by deita-train {version('deita-train')}",
                repo_type=kind,
            )
    return address


def _refuse_others(upload: Upload, repo: str, others: set[str]) -> None:
    """Refuse a repository whose other files could be loaded with what is uploaded, or in its place."""
    pattern, what = {
        "model": (_WEIGHTS, "weights that are not part of this model, and could be loaded in its place"),
        "dataset": (_ROWS, "data that are not part of this selection, and could be read with it or in its place"),
    }[upload.repo_type]
    found = sorted(name for name in others if pattern.fullmatch(name))
    if found:
        raise UserError(
            f"{repo} holds {what}: {', '.join(found[:5])}{' and more' if len(found) > 5 else ''}. Remove them there, "
            "or name another one."
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

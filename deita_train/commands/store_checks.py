"""`deita-train store verify`: what is wrong with the files of published artefacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deita_train.errors import UserError
from deita_train.recipe.wording import nearest
from deita_train.store.artefacts import MANIFEST, Store
from deita_train.store.file_digests import damaged_files


def check_artefacts(store: Store, names: Sequence[str] | None) -> Mapping[str, list[str]]:
    """What is wrong with each of the artefacts, a line for each file; no line for one that is whole.

    Raises:
        UserError: there is no such artefact.
    """
    published = store.published()
    unknown = next((name for name in names or () if name not in published), None)
    if unknown is not None:
        near = nearest(unknown, published)
        hint = f" (did you mean {near}?)" if near else ""
        raise UserError(f"{unknown}: {store.folder} has no such artefact{hint}; `deita-train store ls` lists them.")
    return {name: _problems(store, name) for name in names or published}


def _problems(store: Store, name: str) -> list[str]:
    try:
        manifest = store.manifest(name)
        if manifest.id != name:
            return [f"{MANIFEST} is that of {manifest.id}"]
        found = damaged_files(store.path(name))
    except UserError as error:
        return [str(error)]
    if found is not None:
        return found
    same = _content_digest(store.path(name)) == manifest.content_digest
    return [] if same else ["data, trace, model or files differ from the manifest's digest"]


def _content_digest(folder: Path) -> str | None:
    """The digest of an artefact's content, for one without digests of its files; None where it cannot be read."""
    import pyarrow as pa

    from deita_train.stages.checks import content_digest

    try:
        return content_digest(folder)
    except (OSError, ValueError, pa.ArrowException):
        return None

"""Content keys: an artefact is named by what decides its content (`plan/identity.py`), and by nothing else."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deita_train.errors import UserError, raise_machine_fault
from deita_train.store.atomic_io import write_json_atomically


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text. Non-finite floats are an error."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(kind: str, version: int, config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """SHA-256 (64 hex digits) over a stage's kind, version, configuration and its parents' keys."""
    text = canonical_json({"kind": kind, "version": version, "config": config, "parents": dict(parents)})
    return hashlib.sha256(text.encode()).hexdigest()


class ContentHashes:
    """SHA-256 of local files and folders, remembered by path, size and modification time.

    A 13B model is 26 GB, which every `plan` would read again without the cache.
    """

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file
        self._cache: dict[str, list[Any]] = {}
        if cache_file.exists():
            try:
                self._cache = json.loads(cache_file.read_text())
            except ValueError:  # a damaged cache only costs hashing everything again
                self._cache = {}

    def of(self, path: Path) -> str:
        """The hash of a file, or of a folder over its files' relative paths and hashes."""
        if path.is_dir():
            return self.of_files(path, (p for p in path.rglob("*") if p.is_file()))
        return self._of_file(path)

    def of_files(self, folder: Path, files: Iterable[Path]) -> str:
        """The hash over some of a folder's files; over all of them it is that of the folder."""
        listing = {str(path.relative_to(folder)): self._of_file(path) for path in sorted(files)}
        return hashlib.sha256(canonical_json(listing).encode()).hexdigest()

    def save(self) -> None:
        """Write the cache for the next start."""
        self._cache_file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(self._cache_file, self._cache)

    def _of_file(self, path: Path) -> str:
        try:
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            name = str(path.resolve())
            known = self._cache.get(name)
            if known is not None and known[:3] == stamp:
                return str(known[3])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise_machine_fault(error, path)
            raise UserError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
        self._cache[name] = [*stamp, digest]
        return digest

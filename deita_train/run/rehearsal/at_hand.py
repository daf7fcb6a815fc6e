"""What of a recipe's models and data is at hand: on this machine, in the Hub's cache, or on the Hub if it answers."""

import os
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path

from deita_train.data.places import HUB_ID, find_place
from deita_train.errors import UserError
from deita_train.plan.inputs import resolve_commit

_HUB = "https://huggingface.co"
_SECONDS = 8.0
_OFFLINE = "HF_HUB_OFFLINE"


class Reach:
    """Answers once per rehearsal what can be reached."""

    def __init__(self) -> None:
        self._commits: dict[tuple[str, str, str | None], str | None] = {}

    @cached_property
    def hub_answers(self) -> bool:
        """Whether the Hub answers; where it does not, this process and its children stop asking it."""
        if os.environ.get(_OFFLINE) or os.environ.get("HF_DATASETS_OFFLINE"):
            return False
        try:
            with urllib.request.urlopen(os.environ.get("HF_ENDPOINT", _HUB), timeout=_SECONDS):
                return True
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError):
            os.environ[_OFFLINE] = "1"
            return False

    def commit(self, kind: str, name: str, revision: str | None) -> str | None:
        """The commit of a model or dataset of the Hub; None where neither the Hub nor its cache says it."""
        asked = (kind, name, revision)
        if asked not in self._commits:
            _ = self.hub_answers  # before the Hub's library reads the environment
            self._commits[asked] = resolve_commit(kind, name, revision)
        return self._commits[asked]

    def of_model(self, name: str, revision: str | None) -> str:
        """`local`, `hub` (files can be had), `unknown` (the Hub answers and has no such model) or `none`."""
        if Path(name).expanduser().is_dir():
            return "local"
        if not HUB_ID.fullmatch(name):
            return "unknown"  # planning says what is wrong with the name
        if self.commit("model", name, revision) is not None:
            return "hub"
        return "unknown" if self.hub_answers else "none"

    def of_data(self, dataset: str, revision: str | None) -> str:
        """`local`, `url`, `stream`, `cache`, `unknown` or `none`, as `data/first_rows.py` reads it."""
        try:
            place = find_place(dataset)
        except UserError:
            # What is there and not clear, other fields tell apart; what is not there, planning refuses.
            return "local" if Path(dataset).expanduser().exists() else "unknown"
        if place.kind == "url":
            return "url"
        if place.kind != "hub":
            return "local"
        if self.commit("dataset", dataset, revision) is None:
            return "unknown" if self.hub_answers else "none"
        return "stream" if self.hub_answers else "cache"

"""The commits of the Hub's repositories, which a run is bound to."""

import os
import sys
from pathlib import Path

from deita_train.errors import UserError


class NotOnHub(UserError):
    """The Hub has no such repository or revision, or not for this user."""


def resolve_commit(kind: str, name: str, revision: str | None) -> str | None:
    """The commit of a Hub repository at a revision: from the Hub, else from the local cache, else None.

    Raises:
        NotOnHub: the Hub answers that there is none, and neither has the cache one.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "refs" / (revision or "main")
    if not constants.HF_HUB_OFFLINE and not os.environ.get("HF_DATASETS_OFFLINE"):
        try:
            info = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=20)
            return str(info.sha)
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            if not cached.exists():
                raise NotOnHub(
                    f"{name} is not a local path, and the Hub has no {kind} {name} at {revision or 'main'}, or not for "
                    "you. Correct the name, or log in (hf auth login)."
                ) from error
        except Exception as error:  # which HTTP client raises depends on the Hub library's version
            sys.stderr.write(f"the Hub does not answer for {kind} {name} ({type(error).__name__}); trying the cache\n")
    return cached.read_text().strip() if cached.exists() else None

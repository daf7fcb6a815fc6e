"""What the end-to-end tests read from a runs folder."""

import json
from pathlib import Path

import datasets


def stages(runs: Path, name: str = "smoke") -> dict[str, str]:
    """Artefact ids of the recipe as written, by stage label."""
    record = json.loads((runs / name / "stages.json").read_text())
    return next(cell["stages"] for cell in record["cells"] if cell["base"])


def digests(runs: Path, name: str = "smoke") -> dict[str, str]:
    """Content digests by stage label."""
    return {
        label: json.loads((runs / "store" / artefact / "manifest.json").read_text())["content_digest"]
        for label, artefact in stages(runs, name).items()
    }


def selected_ids(runs: Path, name: str = "smoke") -> list[str]:
    """The kept ids in rank order."""
    return list(datasets.load_from_disk(str(runs / "store" / stages(runs, name)["select"] / "data"))["id"])

"""Licences as the cards of models and datasets state them, read from the Hub's cache on this machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
# `license: other` is explained by the two others.
_FIELDS = ("license", "license_name", "license_link")


def base_licence(model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields on the licence in the card of a Hub model, as a manifest identifies it; empty if they are not known.

    The card was downloaded with the weights. No network is used.
    """
    return _stated(model, "model")


def dataset_licence(source: Mapping[str, Any]) -> dict[str, Any]:
    """The fields on the licence in the card of a Hub dataset, as a manifest identifies it; empty if they are not known.

    The card was downloaded with the rows. No network is used. A list with one licence is that licence.
    """
    return _stated(source, "dataset")


def _stated(of: Mapping[str, Any], repo_type: Literal["model", "dataset"]) -> dict[str, Any]:
    if "hub" not in of:
        return {}
    cached = try_to_load_from_cache(of["hub"], "README.md", revision=of["revision"], repo_type=repo_type)
    stated = dict(_front_matter(Path(cached))) if isinstance(cached, str) else {}
    licence = stated.get("license")
    if repo_type == "dataset" and isinstance(licence, list) and len(licence) == 1:
        stated["license"] = licence[0]
    known = {name: stated[name] for name in _FIELDS if isinstance(stated.get(name), str)}
    return known if "license" in known else {}


def _front_matter(card: Path) -> Mapping[str, Any]:
    """The data at the head of a card; empty where there is none that can be read."""
    found = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        data = YAML(typ="safe").load(found[1]) if found else {}
    except YAMLError:
        return {}
    return data if isinstance(data, dict) else {}

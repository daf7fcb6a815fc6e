"""What a plan knows of a stage's model before anything is loaded: its config.json, or why it has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.models.adapter_files import is_adapter, locate_base
from deita_train.models.known_models import known_config
from deita_train.models.weight_shapes import Shapes, shapes_in_folder, shapes_of_config
from deita_train.plan.node import Node
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.artefacts import Store
from deita_train.store.atomic_io import read_json

# The miniature's, see training/miniature.py.
_MINIATURE_INNER = 3


@dataclass(frozen=True)
class FoundModel:
    """A stage's model.

    Attributes:
        name: as the recipe names it, or the stage that makes it.
        config: its config.json; None where it is not known.
        shapes: of its weights; empty where they are not known.
        from_table: whether the shape is that of the package's table, because the model is not here.
        why: why nothing is known; empty otherwise.
    """

    name: str
    config: Mapping[str, Any] | None
    shapes: Shapes
    from_table: bool = False
    why: str = ""


def model_of(store: Store, node: Node) -> FoundModel | None:
    """The model that a stage reads or starts from; None for a stage without one."""
    if STAGE_KINDS[node.kind].makes_base:
        return _of_config("base", _miniature(node.identity["architecture"]))
    if "model" in node.parents:
        return _made(store, node.parents["model"])
    identity = node.identity.get("model")
    if not isinstance(identity, Mapping) or "endpoint" in node.runtime:  # what an endpoint serves is not loaded here
        return None
    if "hub" in identity:
        return _of_hub(identity["hub"], identity["revision"])
    return _of_folder(Path(node.runtime["model"]))


def _made(store: Store, maker: Node) -> FoundModel | None:
    """A whole model, or an adapter over one, that another stage makes; it has the shape that its own model has."""
    folder = store.path(maker.id) / "model"
    if store.has(maker.id) and (folder / "config.json").is_file():
        found = _of_folder(folder)
        if found.shapes:
            return found
    return model_of(store, maker)


def _of_hub(hub: str, commit: str) -> FoundModel:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub, "config.json", revision=commit)
    if isinstance(config, str):
        return _of_folder(Path(config).parent, hub)
    known = known_config(hub)
    if known is None:
        return FoundModel(hub, None, {}, why=f"{hub} is not here yet")
    return FoundModel(hub, known, shapes_of_config(known) or {}, from_table=True)


def _of_folder(folder: Path, name: str = "") -> FoundModel:
    """From the weights' headers, or from config.json where weights are missing."""
    if is_adapter(folder):
        base = locate_base(folder)
        return _of_folder(base.folder) if base.folder is not None else _of_hub(base.hub, base.revision)
    config = read_json(folder / "config.json")
    try:
        shapes = shapes_in_folder(folder)
    except (FileNotFoundError, ValueError):  # the run says what is wrong with them
        shapes = {}
    return FoundModel(name or str(folder), config, shapes) if shapes else _of_config(name or str(folder), config)


def _of_config(name: str, config: Mapping[str, Any]) -> FoundModel:
    shapes = shapes_of_config(config)
    if shapes is None:
        why = f"the weights of a {config.get('model_type')} do not follow from its config.json"
        return FoundModel(name, config, {}, why=why)
    return FoundModel(name, config, shapes)


def _miniature(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the miniature, as far as it decides the weights."""
    return {
        "model_type": "llama",
        "vocab_size": shape["vocab_size"],
        "hidden_size": shape["hidden_size"],
        "intermediate_size": _MINIATURE_INNER * shape["hidden_size"],
        "num_hidden_layers": shape["num_layers"],
        "num_attention_heads": shape["num_heads"],
    }

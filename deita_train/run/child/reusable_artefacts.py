"""Published artefacts whose work a stage can reuse: of the same kind, configuration and model.

A scorer or an encoder finds rows of another pool there, a selection its own walk to another budget.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deita_train.plan.identity import hashed
from deita_train.plan.node import ID_DIGITS, Node
from deita_train.plan.plan import is_current
from deita_train.selection.settings import METHODS
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.artefacts import Manifest, Store
from deita_train.store.keys import canonical_json, content_key


def find_reusable(store: Store, node: Node) -> tuple[Path, ...]:
    """The folders of the artefacts that a node can reuse; none where the recipe says `reuse_rows: false`.

    A published stage that is rebuilt reuses nothing, because other artefacts may have taken their rows from it. A
    selection whose parents were rebuilt with other content can reuse what was made from the new content.
    """
    if STAGE_KINDS[node.kind].reuses == "walk":
        is_reusable, is_rebuilt = _is_same_walk, is_current(store, node)
        # Strata share out every budget anew: a smaller one is no beginning of a larger one.
        reuses = METHODS[node.identity["method"]].expensive and "strata" not in node.identity
    else:
        is_reusable, is_rebuilt = _has_same_values, store.has(node.id)
        reuses = node.runtime.get("reuse_rows", False)
    if is_rebuilt or not reuses:
        return ()
    names = [name for name in store.published() if name.startswith(f"{node.kind}-")]
    return tuple(store.path(name) for name in names if is_reusable(store, node, store.manifest(name)))


def _is_same_walk(store: Store, node: Node, manifest: Manifest) -> bool:
    """Whether the artefact is the same selection to another budget, made from the very same content.

    Where only the embeddings that a walk looked at were made, the selection itself compares them (`seen_rows`).
    """
    return (
        manifest.kind == node.kind
        and _walk(manifest) == _walk(node)
        and _keys_of_manifest(manifest) == _keys_of_node(node)
        and all(
            store.has(parent) and store.manifest(parent).content_digest == manifest.parent_digests[name]
            for name, parent in _without(manifest.parents, _only_of_budget(manifest.identity)).items()
        )
        and _is_of_this_version(store, manifest)
    )


def _keys_of_node(node: Node) -> dict[str, str]:
    """The keys of what a walk reads, in the digits of an artefact's name, without what only the budget reads."""
    keys = {name: key[:ID_DIGITS] for name, key in node.parent_keys.items()}
    return _without(keys, _only_of_budget(node.identity))


def _keys_of_manifest(manifest: Manifest) -> dict[str, str]:
    keys = {name: parent.rpartition("-")[2] for name, parent in manifest.parents.items()}
    keys |= {name: key[:ID_DIGITS] for name, key in (manifest.counts_as or {}).items()}
    return _without(keys, _only_of_budget(manifest.identity))


def _walk(stage: Node | Manifest) -> str:
    """What decides the order and the result of a walk: what counts in the key but the budget."""
    return canonical_json(_without(hashed(stage.kind, stage.identity), {"budget", *_only_of_budget(stage.identity)}))


def _only_of_budget(config: Mapping[str, Any]) -> set[str]:
    """The fields and parents that only count a budget of tokens; with `only_trained_turns` they decide scores too."""
    return set() if config.get("only_trained_turns") else {"lengths", "max_length", "cut_at_context"}


def _without(entries: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if name not in names}


def _has_same_values(store: Store, node: Node, manifest: Manifest) -> bool:
    """Whether the artefact holds what the node would compute from the same input."""
    return (
        manifest.kind == node.kind
        and _counted(manifest) == _counted(node)
        and _has_model(store, manifest, node.parents.get("model"))
        and _is_of_this_version(store, manifest)
    )


def _counted(stage: Node | Manifest) -> str:
    """What counts in the key; equal for artefacts of versions that recorded fewer defaults.

    Which rows were embedded does not change their vectors.
    """
    return canonical_json(_without(hashed(stage.kind, stage.identity), {"walk"}))


def _has_model(store: Store, manifest: Manifest, model: Node | None) -> bool:
    """Whether the artefact was made with that model, whose content `--fresh` can change under the same key.

    Without a model the configuration names one.
    """
    if model is None:
        return "model" not in manifest.parents
    made_with = manifest.parents.get("model"), manifest.parent_digests.get("model")
    return made_with == (model.id, store.manifest(model.id).content_digest)


def _is_of_this_version(store: Store, manifest: Manifest) -> bool:
    """Whether today's code gives the artefact the same key; unknown, and so no, once a parent was removed."""
    if not all(store.has(parent) for parent in manifest.parents.values()):
        return False
    parents = {name: store.manifest(parent).key for name, parent in manifest.parents.items()}
    parents |= manifest.counts_as or {}
    counted = hashed(manifest.kind, manifest.identity)
    return manifest.key == content_key(manifest.kind, STAGE_KINDS[manifest.kind].version, counted, parents)

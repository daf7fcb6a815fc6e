"""Published artefacts in which a stage may find rows again: of the same kind, configuration and model."""

from pathlib import Path

from deita_train.run.artefacts import Manifest, Store
from deita_train.run.graph import VERSIONS, Node
from deita_train.run.keys import canonical_json, content_key


def find_siblings(store: Store, node: Node) -> tuple[Path, ...]:
    """The folders of a node's siblings; none when the recipe says `reuse_rows: false`.

    None either for a stage that is published and made anew: its rows may lie in artefacts that took them from it.
    """
    if not node.settings.get("reuse_rows", False) or store.has(node.id):
        return ()
    names = [name for name in store.published() if name.startswith(f"{node.kind}-")]
    return tuple(store.path(name) for name in names if _is_sibling(store, node, store.manifest(name)))


def _is_sibling(store: Store, node: Node, manifest: Manifest) -> bool:
    """Whether the artefact's values are what the node would compute from the same input."""
    return (
        manifest.kind == node.kind
        and canonical_json(manifest.config) == canonical_json(node.config)
        and _has_model(store, manifest, node.parents.get("model"))
        and _is_of_this_version(store, manifest)
    )


def _has_model(store: Store, manifest: Manifest, model: Node | None) -> bool:
    """Whether the artefact was made with that model, whose content `--fresh` can change under the same key.

    A model of None is one that the configuration names.
    """
    if model is None:
        return "model" not in manifest.parents
    made_with = manifest.parents.get("model"), manifest.parent_digests.get("model")
    return made_with == (model.id, store.manifest(model.id).content_digest)


def _is_of_this_version(store: Store, manifest: Manifest) -> bool:
    """Whether the present code would give it the same key; of one whose parents were removed nobody can say."""
    if not all(store.has(parent) for parent in manifest.parents.values()):
        return False
    parents = {name: store.manifest(parent).key for name, parent in manifest.parents.items()}
    return manifest.key == content_key(manifest.kind, VERSIONS[manifest.kind], manifest.config, parents)

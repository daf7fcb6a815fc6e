"""A stage as a node of the plan's graph."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.identity import hashed
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.keys import content_key

# Of its key, in the name of an artefact's folder.
ID_DIGITS = 12
# Stands in an identity for what only the network could tell.
UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Node:
    """One stage of one recipe.

    Attributes:
        label: its name in the recipe, such as `score.quality`.
        kind: its row in `STAGE_KINDS`.
        identity: what decides its content, every default included; hashed into the key.
        runtime: how it runs, and where its data lies; not hashed.
        parents: the stages that it reads, by role.
        counts_as: what counts in the key in place of some parents, by role: another stage, from whose result the same
            content would follow, or nothing for a parent that only says in which order the work is done.
        stated: dotted paths of fields of `identity` that count in the key even with their implied value.
    """

    label: str
    kind: str
    identity: Mapping[str, Any]
    runtime: Mapping[str, Any]
    parents: Mapping[str, "Node"] = field(default_factory=dict)
    stated: frozenset[str] = frozenset()
    counts_as: Mapping[str, "Node | None"] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """64 hex digits; equal keys mean equal content."""
        return content_key(self.kind, STAGE_KINDS[self.kind].version, self.hashed, self.parent_keys)

    @property
    def decisive(self) -> dict[str, "Node"]:
        """The parents by role that decide the content."""
        return {name: node for name, node in self.parents.items() if self.counts_as.get(name, node) is not None}

    @property
    def parent_keys(self) -> dict[str, str]:
        """What counts in the key for each of them."""
        counted = {name: self.counts_as.get(name, node) for name, node in self.decisive.items()}
        return {name: node.key for name, node in counted.items() if node is not None}

    @property
    def hashed(self) -> dict[str, Any]:
        """What of the identity counts in the key."""
        return hashed(self.kind, self.identity, self.stated)

    @cached_property
    def is_unresolved(self) -> bool:
        """Whether something that it or an ancestor reads could not be resolved, so that its key is not the run's."""
        return _has_unresolved(self.identity) or any(parent.is_unresolved for parent in self.parents.values())

    @property
    def id(self) -> str:
        """The artefact's folder name in the store."""
        return f"{self.kind}-{self.key[:ID_DIGITS]}"

    def ancestors(self) -> Iterator["Node"]:
        """Every node that this one reads, directly or not; parents before children."""
        for parent in self.parents.values():
            yield from parent.ancestors()
            yield parent


def _has_unresolved(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_unresolved, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_unresolved, value))
    return isinstance(value, str) and value == UNRESOLVED


def stages_until(nodes: Mapping[str, Node], until: str | None) -> dict[str, Node]:
    """The stage with that label, else those of that kind, and everything that they read; all when `until` is None."""
    if until is None:
        return dict(nodes)
    ends = [nodes[until]] if until in nodes else [node for node in nodes.values() if until == node.kind]
    if not ends:
        known = ", ".join(dict.fromkeys(name for node in nodes.values() for name in (node.kind, node.label)))
        raise UserError(f"until {until}: the recipe has no such stage; it has {known}")
    kept = {node.key for end in ends for node in (end, *end.ancestors())}
    return {label: node for label, node in nodes.items() if node.key in kept}

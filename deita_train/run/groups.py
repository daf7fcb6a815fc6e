"""Which passes of a run share a process: those over one base, which then stays in memory from one to the next."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from deita_train.plan.node import Node
from deita_train.store.keys import canonical_json

_PASSES = ("score", "embed")


def in_groups(nodes: Sequence[Node], missing: Collection[str]) -> list[list[Node]]:
    """The nodes in an order in which they can be made, those that one process makes together in one list.

    `nodes` has parents before children, and `missing` the ids of those that are to be made. A group stands where its
    last member stood, and no node between its members reads one of them; all else keeps its order.
    """
    group_of = _groups(nodes, missing)
    for node in nodes:
        # A model that is only embedded with may have no output head, and the shared one has.
        if not any(member.kind == "score" for member in group_of[node.id]):
            group_of[node.id] = [node]
    return [group_of[node.id] for node in nodes if group_of[node.id][-1] is node]


def shares_a_process(node: Node) -> bool:
    """Whether a stage may follow another one in a process: a pass of one process, which publishes itself.

    With more ranks each stage is published by a process without a process group, after its ranks have ended.
    """
    return node.kind in _PASSES and node.settings["launch"]["distributed_type"] == "NO"


def _groups(nodes: Sequence[Node], missing: Collection[str]) -> dict[str, list[Node]]:
    groups: dict[str, list[Node]] = {}
    growing: dict[str, list[Node]] = {}
    for node in nodes:
        read = {ancestor.key for ancestor in node.ancestors()}
        growing = {key: group for key, group in growing.items() if not any(member.key in read for member in group)}
        shared = _shared_key(node) if node.id in missing and shares_a_process(node) else None
        groups[node.id] = [] if shared is None else growing.setdefault(shared, [])
        groups[node.id].append(node)
    return groups


def _shared_key(node: Node) -> str:
    """What two passes must have in common: the base, its dtype, and how they are launched."""
    return canonical_json({"base": _base(node), "dtype": node.config["dtype"], "launch": dict(node.settings["launch"])})


def _base(node: Node) -> Any:
    """What a pass has in memory apart from an adapter: a stage's key, or the identity of a model from outside."""
    maker = node.parents.get("model")
    if maker is None:
        identity: Mapping[str, Any] = node.config["model"]
        return identity.get("base", identity)
    is_adapter = "peft" in maker.config and not maker.config["merge_adapter"]
    if not is_adapter:
        return maker.key
    return maker.parents["model"].key if "model" in maker.parents else maker.config["model"]

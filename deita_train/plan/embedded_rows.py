"""Which rows of the pool are embedded: all, or those that the Repr Filter's walk looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deita_train.plan.identity import hashed
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.schema import Recipe
from deita_train.selection.settings import METHODS

EMBED = "embed"
# A selection's method with a walk that need not know the rows behind its end.
_WALKS = "deita"


def reads_all(recipe: Recipe) -> str | None:
    """What of a recipe reads the embedding of every row; None where nothing does but a walk that ends at its budget."""
    embedding, select = recipe.embedding, recipe.select
    assert embedding is not None
    if embedding.center:
        return "embedding.center subtracts the mean of all rows"
    if embedding.whiten:
        return "embedding.whiten reads the embeddings of all rows"
    if select is None:
        return "the recipe has no select: that would walk"
    if select.strata is not None:
        return "select.strata walks each part of the pool by itself, to a budget that depends on all of them"
    if METHODS[select.method].embeddings and select.method != _WALKS:
        return f"select.method {select.method} reads the embeddings of all rows"
    return None if recipe.compare is None else "compare: measures the whole pool"


def check_rows(builder: Builder) -> None:
    """Refuse `rows: walked` where something reads all.

    Raises:
        UserError: with what reads them.
    """
    embedding = builder.recipe.embedding
    assert embedding is not None
    reader = reads_all(builder.recipe)
    if embedding.rows == "walked" and reader is not None:
        raise builder.inputs.error(
            "embedding.rows",
            f"walked embeds only the rows that select.method {_WALKS} looks at, and {reader}. State rows: all, or "
            "leave rows out.",
        )


def along_walk(
    builder: Builder, identity: Mapping[str, Any], parents: Mapping[str, Node]
) -> tuple[Node, dict[str, Node | None]]:
    """The embedding that the recipe's selection reads, and what counts in the selection's key in its place.

    Where only the walk reads embeddings, the stage `embed` goes along it: it knows what the selection knows, and plans
    its batches in the order of the walk. Such batches are those of `rows: all` too, so a row has the same vector,
    bit by bit, whether the others are embedded or not. Nothing but these vectors decides the selection, so the
    embedding of all rows counts in its key.

    Args:
        builder: the stages so far; its stage `embed` is replaced.
        identity: of the selection.
        parents: of the selection, with `embed`.
    """
    whole, recipe = parents[EMBED], builder.recipe
    if whole.label != EMBED or recipe.embedding is None or identity["method"] != _WALKS or reads_all(recipe):
        return whole, {}
    guides = {name: parent for name, parent in parents.items() if name not in whole.parents and name != EMBED}
    node = replace(
        whole,
        runtime={**whole.runtime, "walk": dict(identity)},
        parents={**whole.parents, **guides},
    )
    counts_as: dict[str, Node | None] = {}
    if recipe.embedding.rows == "all":
        node = replace(node, counts_as=dict.fromkeys(guides))
    else:
        node = replace(node, identity={**whole.identity, "walk": hashed("select", identity)})
        counts_as = {EMBED: whole}
    del builder.nodes[EMBED]  # it now comes after what it reads
    return builder.add(node), counts_as


def without_unread_embedding(graphs: Sequence[dict[str, Node]]) -> list[dict[str, Node]]:
    """The stages of a sweep's cells, where those without a reader of embeddings embed nothing that no other cell reads.

    Args:
        graphs: the stages of each cell by label.
    """
    read = {nodes[EMBED].key for nodes in graphs if EMBED in nodes and _is_read(nodes)}
    return [
        {label: node for label, node in nodes.items() if label != EMBED}
        if read and EMBED in nodes and not _is_read(nodes) and nodes[EMBED].key not in read
        else nodes
        for nodes in graphs
    ]


def _is_read(nodes: Mapping[str, Node]) -> bool:
    return any(nodes[EMBED] is parent for node in nodes.values() for parent in node.parents.values())

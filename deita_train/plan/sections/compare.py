"""Section `compare:`, which selects by other methods too and measures all selections alike."""

from typing import Any

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.plan.sections.select import add_selection, is_centered
from deita_train.recipe.schema import Compare, Recipe, Select, SelectMethod
from deita_train.selection.settings import (
    DIMENSIONS,
    METHODS,
    Score,
    check_compared,
    check_shared_column,
    score_dimensions,
)


def add_compare(builder: Builder, compare: Compare) -> None:
    """Add a selection for each compared method, and the stage that measures them."""
    chosen, *others = _selects(builder)
    selections = {chosen.method: builder.nodes["select"]}
    for select in others:
        where = f"compare.columns.{select.method}"
        selections[select.method] = add_selection(builder, f"select.{select.method}", select, where)
    parents = {"pool": builder.pool("compare")} | {f"select.{name}": node for name, node in selections.items()}
    score = _compared_score(builder, chosen)
    identity: dict[str, Any] = {
        "methods": list(selections),
        "score": score,
        "max_length": compare.max_length,
        "token_column": compare.token_column,
    }
    if score is not None:
        identity["score_turns"] = chosen.score_turns
        for name in score_dimensions(score):
            parents[name] = builder.either(f"scores.{name}", f"score.{name}", "compare", f"scores.{name}:")
    if builder.recipe.embeddings is not None or builder.recipe.embedding is not None:
        parents["embed"] = builder.either("embeddings", "embed", "compare", "embedding: or embeddings:")
        identity["center"] = is_centered(builder)
    builder.add(Node("compare", "compare", identity, {}, parents))


def selects_of(recipe: Recipe) -> list[Select]:
    """The recipe's selection, and one with the same settings for each method that `compare:` names.

    Raises:
        UserError: for methods that cannot be compared with that selection. The recipe must have one.
    """
    select, compare = recipe.select, recipe.compare
    assert select is not None
    if compare is None:
        return [select]
    check_compared(select.method, compare.methods, compare.columns, in_tokens=select.in_tokens)
    columns = {method: _column_of(recipe, compare, method) for method in compare.methods}
    shared = [name for name, column in columns.items() if column == select.column and name not in compare.columns]
    check_shared_column(select.column, [select.method, *shared])
    return [select, *(select.model_copy(update={"method": name, "column": of}) for name, of in columns.items())]


def _selects(builder: Builder) -> list[Select]:
    if builder.recipe.select is None:
        raise builder.inputs.missing("compare", "select:")
    try:
        return selects_of(builder.recipe)
    except UserError as error:
        raise builder.inputs.error("compare", str(error)) from None


def _compared_score(builder: Builder, select: Select) -> Score | None:
    """What the mean score is of: `select.score` where the recipe has its scores, else a dimension that it has."""
    there = [name for name in DIMENSIONS if builder.nodes.keys() & {f"scores.{name}", f"score.{name}"}]
    if set(score_dimensions(select.score)) <= set(there):
        return select.score
    return there[0] if there else None


def _column_of(recipe: Recipe, compare: Compare, method: SelectMethod) -> str | None:
    """The column that a compared method reads: its own, none where `perplexity:` measures it, else the shared one."""
    assert recipe.select is not None
    if method in compare.columns:
        return compare.columns[method]
    measured = METHODS[method].measured
    return None if measured is not None and getattr(recipe, measured) is not None else recipe.select.column

"""Section `compare:`, which selects by other methods too and measures all selections alike."""

from collections.abc import Sequence
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.plan.sections.select import add_lengths, add_selection, how_compared
from deita_train.recipe.schema import Compare, Recipe, Select, SelectMethod
from deita_train.selection.settings import (
    DIMENSIONS,
    METHODS,
    Score,
    check_compared,
    check_match,
    check_shared_column,
    score_dimensions,
)


def add_compare(builder: Builder, compare: Compare) -> None:
    """Add a selection for each compared method, and the stage that measures them."""
    chosen, *others = _selects(builder)
    _check_seeds(builder, compare, [chosen, *others])
    selections = {chosen.method: builder.required("select", "compare", "select:")}
    seeded: dict[str, list[str]] = {}
    for name, select in _other_seeds(builder, chosen, compare.seeds or ()):
        selections[name] = add_selection(builder, f"select.{name}", select)
        seeded.setdefault(chosen.method, [chosen.method]).append(name)
    matched = builder.nodes["select"] if compare.match == "tokens" else None
    for select in others:
        where = f"compare.columns.{select.method}"
        for name, of_seed in _by_seed(select, compare.seeds):
            selections[name] = add_selection(builder, f"select.{name}", of_seed, where, matched)
            if of_seed is not select:
                seeded.setdefault(select.method, []).append(name)
    parents = {"pool": builder.pool("compare")} | {f"select.{name}": node for name, node in selections.items()}
    score = _compared_score(builder, chosen)
    identity: dict[str, Any] = {
        "methods": list(selections),
        "score": score,
        "max_length": compare.max_length,
        "token_column": compare.token_column,
        "seeded": seeded or None,
        "trained": None,
        "mean_of": compare.mean_of or None,
    }
    if compare.counts_tokens:
        parents["lengths"], identity["trained"] = add_lengths(builder, chosen, builder.pool("compare"))
    if score is not None:
        identity["score_turns"] = chosen.score_turns
        for name in score_dimensions(score):
            parents[name] = builder.either(f"scores.{name}", f"score.{name}", "compare", f"scores.{name}:")
    if builder.recipe.embeddings is not None or builder.recipe.embedding is not None:
        parents["embed"] = builder.either("embeddings", "embed", "compare", "embedding: or embeddings:")
        identity |= how_compared(builder)
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
    in_tokens = select.in_tokens or compare.match == "tokens"
    check_compared(select.method, compare.methods, compare.columns, in_tokens=in_tokens)
    if compare.match == "tokens":
        check_match(in_tokens=select.in_tokens)
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


def _draws(select: Select) -> bool:
    return "seed" in METHODS[select.method].settings


def _check_seeds(builder: Builder, compare: Compare, selects: Sequence[Select]) -> None:
    if compare.seeds is not None and not any(map(_draws, selects)):
        methods = ", ".join(select.method for select in selects)
        raise builder.inputs.error("compare.seeds", f"would have no effect, because none of {methods} draws.")


def _by_seed(select: Select, seeds: Sequence[int] | None) -> list[tuple[str, Select]]:
    """The selections of one method by name: one for each seed where it draws."""
    if seeds is None or not _draws(select):
        return [(select.method, select)]
    return [(f"{select.method} seed {seed}", select.model_copy(update={"seed": seed})) for seed in seeds]


def _other_seeds(builder: Builder, chosen: Select, seeds: Sequence[int]) -> list[tuple[str, Select]]:
    """The recipe's own selection with the seeds that it does not have already."""
    others = [seed for seed in seeds if seed != builder.seed(chosen.seed)]
    return _by_seed(chosen, others) if _draws(chosen) and others else []


def _compared_score(builder: Builder, select: Select) -> Score | None:
    """What the mean score is of: `select.score` where the recipe has its scores, else a dimension that it has."""
    there = [name for name in DIMENSIONS if builder.nodes.keys() & {f"scores.{name}", f"score.{name}"}]
    if isinstance(select.score, str) and set(score_dimensions(select.score)) <= set(there):
        return select.score
    return there[0] if there else None


def _column_of(recipe: Recipe, compare: Compare, method: SelectMethod) -> str | None:
    """The column that a compared method reads: its own, none where `perplexity:` measures it, else the shared one."""
    assert recipe.select is not None
    if method in compare.columns:
        return compare.columns[method]
    measured = METHODS[method].measured
    return None if measured is not None and getattr(recipe, measured) is not None else recipe.select.column

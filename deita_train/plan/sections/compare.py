"""The stages of `compare:`: a selection by each of its methods, and the measures of all of them."""

from typing import Any

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import DIMENSIONS
from deita_train.plan.sections.selecting import SelectingSections
from deita_train.recipe.schema import Compare, Recipe, Select, SelectMethod
from deita_train.selection.settings import METHODS, check_compared, check_shared_column, score_dimensions


class ComparingSections(SelectingSections):
    """Adds the selections that `compare:` sets beside `select:`, and the comparison."""

    def _add_compare(self, compare: Compare) -> None:
        _, *others = self._selects(compare)
        for select in others:
            self._add_selection(f"select.{select.method}", select, where=f"compare.columns.{select.method}")
        assert self.recipe.select is not None
        selections = {self.recipe.select.method: self.nodes["select"]}
        selections |= {method: self.nodes[f"select.{method}"] for method in compare.methods}
        parents = {"pool": self.nodes["pool"]} | {f"select.{name}": node for name, node in selections.items()}
        config: dict[str, Any] = {"methods": list(selections), "score": self._compared_score()}
        config |= {"max_length": compare.max_length, "token_column": compare.token_column}
        if self.recipe.select.score_turns != "sum" and config["score"] is not None:
            config["score_turns"] = self.recipe.select.score_turns
        if config["score"] is not None:
            parents |= {name: self._scores(name) for name in score_dimensions(config["score"])}
        encoder = self.recipe.embeddings or self.recipe.embedding
        if encoder is not None:
            parents["embed"] = self._either("embeddings", "embed", "compare", "embedding: or embeddings:")
            config["center"] = encoder.center
        self._add(Node("compare", "compare", config, {}, parents))

    def _selects(self, compare: Compare) -> list[Select]:
        if self.recipe.select is None:
            raise self.inputs.missing("compare", "select:")
        try:
            return selects_of(self.recipe)
        except UserError as error:
            raise self.inputs.error("compare", str(error)) from None

    def _compared_score(self) -> str | None:
        """What the mean score is of: `select.score` where the recipe has its scores, else a dimension that it has."""
        assert self.recipe.select is not None
        there = [name for name in DIMENSIONS if self._has_scores(name)]
        if set(score_dimensions(self.recipe.select.score)) <= set(there):
            return self.recipe.select.score
        return there[0] if there else None

    def _has_scores(self, dimension: str) -> bool:
        return bool(self.nodes.keys() & {f"scores.{dimension}", f"score.{dimension}"})

    def _scores(self, dimension: str) -> Node:
        return self._either(f"scores.{dimension}", f"score.{dimension}", "compare", f"scores.{dimension}:")


def selects_of(recipe: Recipe) -> list[Select]:
    """The recipe's selection, and one with the same settings for each method that `compare:` names.

    Raises :class:`UserError` for methods that cannot stand beside that selection. The recipe must have one.
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


def _column_of(recipe: Recipe, compare: Compare, method: SelectMethod) -> str | None:
    """The column of the pool that a compared method reads: its own, none where a stage measures it, else the shared."""
    assert recipe.select is not None
    if method in compare.columns:
        return compare.columns[method]
    return None if METHODS[method].measured and recipe.perplexity is not None else recipe.select.column

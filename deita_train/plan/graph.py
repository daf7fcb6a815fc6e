"""The graph of a recipe: its sections in the order of the data flow, a node for each stage."""

from deita_train.plan.inputs import Inputs
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import DIMENSIONS
from deita_train.plan.sections.compare import ComparingSections
from deita_train.plan.sections.tuning import TuningSections
from deita_train.recipe.schema import Recipe


def build_graph(recipe: Recipe, inputs: Inputs) -> dict[str, Node]:
    """The stages of one recipe by label, in the order of the run."""
    return _Builder(recipe, inputs).build()


class _Builder(ComparingSections, TuningSections):
    """Walks a recipe's sections and adds a node for each stage."""

    def build(self) -> dict[str, Node]:
        recipe = self.recipe
        if recipe.base is not None:
            self._add_base()
        if recipe.pool is not None:
            self._add_pool("pool", recipe.pool.all_sources(), "pool")
        for dimension in DIMENSIONS:
            scorer = getattr(recipe.scorers, dimension) if recipe.scorers is not None else None
            if scorer is not None:
                self._add_scorer(dimension, scorer)
        if recipe.scores is not None:
            self._add_score_files(recipe.scores)
        if recipe.embedding is not None:
            self._add_embed(recipe.embedding)
        if recipe.embeddings is not None:
            self._add_embedding_file(recipe.embeddings)
        if recipe.perplexity is not None:
            self._add_perplexity(recipe.perplexity)
        if recipe.select is not None:
            self._add_select()
        if recipe.compare is not None:
            self._add_compare(recipe.compare)
        if recipe.sft is not None:
            self._add_sft(recipe.sft)
        if recipe.dpo is not None:
            self._add_dpo(recipe.dpo)
        if recipe.evaluate is not None:
            self._add_evaluate(recipe.evaluate)
        return self.nodes

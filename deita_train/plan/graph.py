"""The graph of a recipe: a node for each stage, added section by section in the order of the data flow."""

from collections.abc import Callable, Mapping
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.inputs import Inputs, MissingSection
from deita_train.plan.node import Node
from deita_train.plan.sections.base import add_base
from deita_train.plan.sections.builder import Builder
from deita_train.plan.sections.compare import add_compare
from deita_train.plan.sections.dpo import add_dpo
from deita_train.plan.sections.embedding import add_embedding
from deita_train.plan.sections.evaluate import add_evaluate
from deita_train.plan.sections.evolve import add_direct_score, add_evolve, add_instag
from deita_train.plan.sections.given_files import add_embedding_file, add_score_files
from deita_train.plan.sections.perplexity import add_perplexity
from deita_train.plan.sections.pool import add_pool
from deita_train.plan.sections.scorers import add_scorers
from deita_train.plan.sections.select import add_select
from deita_train.plan.sections.sft import add_sft
from deita_train.recipe.schema import Recipe

# Field of the recipe -> what adds its stages. A section finds the stages that it reads, so it comes after theirs.
SECTIONS: Mapping[str, Callable[[Builder, Any], None]] = {
    "base": add_base,
    "evolve": add_evolve,
    "pool": add_pool,
    "scorers": add_scorers,
    "scores": add_score_files,
    "embedding": add_embedding,
    "embeddings": add_embedding_file,
    "perplexity": add_perplexity,
    "direct_score": add_direct_score,
    "instag": add_instag,
    "select": add_select,
    "compare": add_compare,
    "sft": add_sft,
    "dpo": add_dpo,
    "evaluate": add_evaluate,
}


def build_graph(recipe: Recipe, inputs: Inputs, *, models_are_swept: bool = False) -> dict[str, Node]:
    """The stages of one recipe by label, in the order of the run.

    Args:
        recipe: of one cell.
        inputs: what the recipe names.
        models_are_swept: whether the sweep's cells train different models or by different chat templates.

    Raises:
        UserError: with the problem of each section, except those that only miss a section with a problem.
    """
    builder = Builder(recipe, inputs, models_are_swept=models_are_swept)
    problems: list[str] = []
    for name, add in SECTIONS.items():
        section = getattr(recipe, name)
        if section is not None:
            try:
                add(builder, section)
            except MissingSection as error:
                problems += [] if problems else [str(error)]
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return builder.nodes

"""The sections that ask a chat model: `evolve:`, which makes labels for scorers, `direct_score:` and `instag:`."""

from pathlib import Path

from deita_train.errors import UserError
from deita_train.evolve.operations import Dimension
from deita_train.evolve.prompts import DIRECT_SCORE, RANK, TAGS, Prompts, PromptSet, read_prompts
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.plan.sections.chat_models import chat_model
from deita_train.recipe.llm_sections import ComplexityEvolution, DirectScore, Evolve, Instag, QualityEvolution

# Most tokens of an answer that holds only scores or tags; room for a model that thinks aloud first.
_SHORT_ANSWER = 1024


def add_evolve(builder: Builder, evolve: Evolve) -> None:
    """Add the reading of the seeds, and for each dimension the chains of versions and their ranking."""
    seeds = builder.add_pool("seeds", [evolve.seeds], "evolve.seeds", needs_answer=False)
    if evolve.complexity is not None:
        _add_dimension(builder, evolve, "complexity", evolve.complexity, seeds)
    if evolve.quality is not None:
        _add_dimension(builder, evolve, "quality", evolve.quality, seeds)


def _add_dimension(
    builder: Builder,
    evolve: Evolve,
    dimension: Dimension,
    evolution: ComplexityEvolution | QualityEvolution,
    seeds: Node,
) -> None:
    where = f"evolve.{dimension}"
    model, runtime = chat_model(builder, evolve.llm, "evolve.llm", where)
    prompts = _prompts(builder, dimension, evolution.prompts, where)
    shared = {**model, "dimension": dimension, "seed": builder.seed(evolve.seed)}
    evolved = {
        "evolutions": evolution.evolutions,
        "operations": list(evolution.operations),
        "prompts": prompts.identity(evolution.operations),
        "temperature": evolution.temperature,
        "max_tokens": evolution.max_tokens,
        "max_chars": evolution.max_chars,
    }
    chains = builder.add(Node(where, "evolve", {**shared, **evolved}, runtime, {"seeds": seeds}))
    ranked = {
        "prompt": prompts.texts[RANK],
        "orders": evolution.orders,
        "ask_again": evolution.ask_again,
        "max_tokens": _SHORT_ANSWER,
        "heldout_share": evolve.heldout_share,
    }
    builder.add(Node(f"rank.{dimension}", "rank", {**shared, **ranked}, runtime, {"chains": chains}))


def add_direct_score(builder: Builder, section: DirectScore) -> None:
    """Add the rating of the pool's rows one by one."""
    pool = builder.pool("direct_score")
    model, runtime = chat_model(builder, section.llm, "direct_score.llm", "direct_score")
    prompts = _prompts(builder, section.dimension, section.prompts, "direct_score")
    identity = {
        **model,
        "dimension": section.dimension,
        "prompt": prompts.texts[DIRECT_SCORE],
        "ask_again": section.ask_again,
        "max_tokens": _SHORT_ANSWER,
    }
    builder.add(Node("direct_score", "direct_score", identity, runtime, {"pool": pool}))


def add_instag(builder: Builder, section: Instag) -> None:
    """Add the tagging of the pool's rows."""
    pool = builder.pool("instag")
    model, runtime = chat_model(builder, section.llm, "instag.llm", "instag")
    prompts = _prompts(builder, "tags", section.prompts, "instag")
    identity = {
        **model,
        "prompt": prompts.texts[TAGS],
        "ask_again": section.ask_again,
        "max_tokens": _SHORT_ANSWER,
        "min_count": section.min_count,
        "similarity": section.similarity,
    }
    builder.add(Node("instag", "instag", identity, runtime, {"pool": pool}))


def _prompts(builder: Builder, of: PromptSet, folder: str | None, where: str) -> Prompts:
    try:
        return read_prompts(of, None if folder is None else Path(folder).expanduser())
    except UserError as error:
        raise builder.inputs.error(where, str(error)) from error

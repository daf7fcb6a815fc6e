"""Where a recipe names models and data, as plain data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.run.rehearsal.rewriting import Rewriter
from deita_train.selection.settings import DIMENSIONS

QUESTIONS = ("answers", "judged", "mt_bench", "alpaca_eval")
# Methods whose column holds tags.
_TAGGED = ("instag", "mig")
# What a section says of a Hub dataset or a stream, and a small local file has no use for.
OF_ORIGIN = ("name", "revision", "split", "data_files", "streaming")


@dataclass(frozen=True)
class ModelSite:
    """A field that names a model.

    Attributes:
        section: the dotted path of its section.
        field: the field's name.
    """

    section: str
    field: str

    @property
    def path(self) -> str:
        """The field's dotted path."""
        return f"{self.section}.{self.field}"

    @property
    def label(self) -> str:
        """The label of the stage that reads the model."""
        first, _, rest = self.section.partition(".")
        if first == "scorers":
            return f"train_scorer.{rest.removesuffix('.train')}" if rest.endswith(".train") else f"score.{rest}"
        return {"embedding": "embed"}.get(first, first)


@dataclass(frozen=True)
class DataSite:
    """A section that names a dataset.

    Attributes:
        path: of the section.
        role: what it is read as: conversations, pairs, questions or scorer.
        rows: how many rows a rehearsal reads.
        label: of the stage that reads it.
        dimension: of a scorer's data.
    """

    path: str
    role: str
    rows: int
    label: str
    dimension: str | None = None


POOL_ROWS = 48


def model_sites(recipe: Rewriter) -> Iterator[ModelSite]:
    """The fields of a recipe that name a model from outside the run."""
    sections = [f"scorers.{dimension}{part}" for dimension in DIMENSIONS for part in ("", ".train")]
    sites = [
        ModelSite(section, "model") for section in (*sections, "embedding", "perplexity", "sft", "dpo", "evaluate")
    ]
    sites += [ModelSite("embedding", "sentence_transformer"), ModelSite("select.read_as", "tokenizer")]
    sites += [ModelSite(f"llm.{name}", "local") for name in recipe.at("llm") or {}]
    yield from (site for site in sites if isinstance(recipe.at(site.path), str) and recipe.at(site.path) != "base")


def data_sites(recipe: Rewriter) -> Iterator[DataSite]:
    """The sections of a recipe that read rows, whether of a dataset or generated."""
    sites = [
        DataSite("base.pretrain.data", "conversations", 64, "pretraining_data"),
        DataSite("evolve.seeds", "conversations", 6, "seeds"),
        DataSite("select.target", "conversations", 8, "target"),
        DataSite("sft.data", "conversations", 24, "sft_data"),
        DataSite("dpo.preferences", "pairs", 24, "dpo_data"),
        DataSite("evaluate.heldout", "conversations", 8, "heldout_data"),
        DataSite("evaluate.preferences", "pairs", 8, "heldout_pairs"),
        *(DataSite(f"evaluate.{name}.questions", "questions", 2, f"questions.{name}") for name in QUESTIONS),
    ]
    for dimension in DIMENSIONS:
        train, label = f"scorers.{dimension}.train", f"train_scorer.{dimension}"
        sites += [DataSite(f"{train}.data", "scorer", POOL_ROWS, label, dimension)]
        sites += [DataSite(f"{train}.heldout", "scorer", 16, label, dimension)]
    sources = recipe.at("pool.sources") or []
    each = max(POOL_ROWS // max(len(sources), 1), 16)
    sites += [DataSite(f"pool.sources.{place}", "conversations", each, "pool") for place in range(len(sources))]
    sites += [] if sources else [DataSite("pool", "conversations", POOL_ROWS, "pool")]
    yield from (site for site in sites if isinstance(recipe.at(site.path), dict))


def columns_of(recipe: Rewriter) -> dict[str, str]:
    """The columns of the pool that a recipe names, and what each holds: number, text or tags."""
    columns: dict[str, str] = {}
    method = recipe.at("select.method", "deita")
    compared: Mapping[str, Any] = recipe.at("compare.columns") or {}
    for name, by in ((recipe.at("select.column"), method), *((column, by) for by, column in compared.items())):
        if isinstance(name, str):
            columns[name] = "tags" if by in _TAGGED else "number"
    measured = {"evol", "complexity", "quality", "perplexity", "ifd", "direct_score"}
    between = recipe.at("select.between")
    for names in (recipe.at("select.score.weights"), between if isinstance(between, dict) else None):
        columns |= {name: "number" for name in names or {} if name not in measured}
    by = recipe.at("select.strata.by")
    if isinstance(by, str) and by != "embedding_clusters":
        columns[by] = "text"
    if isinstance(recipe.at("compare.token_column"), str):
        columns[recipe.at("compare.token_column")] = "number"
    return {name: holds for name, holds in columns.items() if "." not in name}


def named_sources(recipe: Rewriter) -> list[str]:
    """The values of the column `source` that a mix or strata name."""
    mix: Mapping[str, Any] = recipe.at("pool.mix") or {}
    share = recipe.at("select.strata.share")
    named = [*(mix.get("weights") or {}), *(mix.get("rows") or {})]
    return list(dict.fromkeys([*named, *(share if isinstance(share, dict) else {})]))

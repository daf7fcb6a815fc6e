"""Section `select:`, which chooses rows of the pool."""

from collections.abc import Sequence
from typing import Any

from deita_train.plan.identity import decisive_trainer
from deita_train.plan.inputs import MissingSection
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.recipe.model_sections import Rendered, Sft
from deita_train.recipe.schema import ReadAs, Select
from deita_train.selection.settings import Method, rules_of, score_dimensions


def add_select(builder: Builder, select: Select) -> None:
    """Add the recipe's selection."""
    add_selection(builder, "select", select)


def add_selection(builder: Builder, label: str, select: Select, where: str = "select.column") -> Node:
    """Add a selection and what only it reads.

    Args:
        builder: the stages so far.
        label: the stage's label.
        select: the method and its settings.
        where: the place in the recipe that a message names when the method's column is missing.
    """
    rules = rules_of(select.method, select.quality_weight)
    parents = {"pool": builder.pool("select")}
    identity: dict[str, Any] = {"method": select.method, "budget": select.plain_budget}
    identity |= {name: getattr(select, name) for name in rules.settings}
    if "seed" in identity:
        identity["seed"] = builder.seed(select.seed)
    if rules.column is not None:
        _read_column(builder, select, rules, where, identity, parents)
    dimensions = _dimensions(builder, select, rules)
    _check_scores(builder, select.method, dimensions)
    for dimension in dimensions:
        parents[dimension] = builder.either(f"scores.{dimension}", f"score.{dimension}", "select", dimension)
    if dimensions:
        identity["score"] = rules.score or select.score
        identity |= {"score_turns": select.score_turns, "only_trained_turns": select.only_trained_turns}
    if rules.embeddings:
        parents["embed"] = builder.either("embeddings", "embed", "select", "embedding: or embeddings:")
        identity["center"] = is_centered(builder)
    if select.in_tokens or identity.get("only_trained_turns"):
        parents["lengths"], how = _add_lengths(builder, select, parents["pool"])
        identity |= how
    runtime: dict[str, Any] = {"allow_fewer": select.allow_fewer}
    launch = builder.inputs.optional_launch(select.launch, "select.launch") if rules.launch else None
    if launch is not None:
        runtime["launch"] = launch
    return builder.add(Node(label, "select", identity, runtime, parents))


def is_centered(builder: Builder) -> bool:
    """Whether the pool's mean is subtracted from the embeddings. The recipe must have some."""
    embedding = builder.recipe.embeddings or builder.recipe.embedding
    assert embedding is not None
    return embedding.center


def _read_column(
    builder: Builder, select: Select, rules: Method, where: str, identity: dict[str, Any], parents: dict[str, Node]
) -> None:
    """The column that the method reads: one of the pool's own, or what a section measures, such as `perplexity:`."""
    if select.column is not None:
        identity["column"] = select.column
    elif rules.measured and getattr(builder.recipe, rules.measured) is not None:
        parents[rules.measured] = builder.required(rules.measured, "select", f"{rules.measured}:")
        identity["column"] = "tags" if rules.measured == "instag" else select.method
    elif rules.measured:
        raise builder.inputs.error(
            where,
            f"method {select.method} needs {rules.measured}:, which measures it, or {where}: with a column of the pool",
        )
    else:
        raise builder.inputs.error(where, f"method {select.method} needs column:, the column of the pool to read")


def _check_scores(builder: Builder, method: str, dimensions: Sequence[str]) -> None:
    """Refuse a method whose scores the recipe does not have, and name the methods that read neither these nor others.

    Raises:
        MissingSection: scores of a dimension are missing.
    """
    lacking = [name for name in dimensions if not builder.nodes.keys() & {f"scores.{name}", f"score.{name}"}]
    if not lacking:
        return
    wanted = (
        "both scores (scorers: or scores:)" if len(lacking) > 1 else f"scorers.{lacking[0]}: or scores.{lacking[0]}:"
    )
    raise MissingSection(
        str(
            builder.inputs.error(
                "select",
                f"needs {wanted}, because select.method {method} ranks by {'them' if len(lacking) > 1 else 'it'}; or "
                "choose a method that reads none: random, longest_response, ifd (docs/selection.md).",
            )
        )
    )


def _dimensions(builder: Builder, select: Select, rules: Method) -> tuple[str, ...]:
    """The dimensions whose scores the selection reads; a method that can do without uses them where they exist."""
    wanted = score_dimensions(rules.score or select.score)
    there = all(builder.nodes.keys() & {f"scores.{name}", f"score.{name}"} for name in wanted)
    if rules.scores == "required" or (rules.scores == "if_any" and (there or select.score != "evol")):
        return wanted
    return ()


def _add_lengths(builder: Builder, select: Select, pool: Node) -> tuple[Node, dict[str, Any]]:
    """Add the stage that counts SFT's tokens; returns it, and where SFT cuts a row.

    Both follow from `sft:`, or from `select.read_as` in a recipe whose SFT does not read these rows.
    """
    sft, read_as = builder.recipe.sft, select.read_as
    if sft is not None and sft.data is not None:
        sft = None  # it trains on other rows
    if sft is not None and read_as is not None:
        raise builder.inputs.error("select.read_as", "sft: says how the rows are read; leave one of the two out.")
    if sft is not None:
        model = builder.model(sft.model, sft.revision, "sft")
        lengths = _lengths(builder, model, sft, "sft", pool)
        cut = {"max_length": decisive_trainer(sft)["max_length"], "cut_at_context": "max_length" not in sft.trainer}
        return lengths, cut
    if read_as is not None:
        model = _tokenizer(builder, read_as)
        cut = {"max_length": read_as.max_length, "cut_at_context": "max_length" not in read_as.model_fields_set}
        return _lengths(builder, model, read_as, "select.read_as", pool), cut
    raise builder.inputs.error(
        f"select.{'budget' if select.in_tokens else 'only_trained_turns'}",
        "counts tokens as SFT reads them, and no sft: of the recipe reads these rows. Add sft:, or select.read_as: "
        "{tokenizer: MODEL}, with chat_template: and max_length: where they are not the model's own (else vicuna_v1.1) "
        "and 2048.",
    )


def _tokenizer(builder: Builder, read_as: ReadAs) -> Model:
    where = "select.read_as"
    if read_as.tokenizer == "base":
        return builder.model("base", None, where)
    return builder.outside_model(read_as.tokenizer, read_as.revision, where, field="tokenizer")


def _lengths(builder: Builder, model: Model, section: Rendered, where: str, pool: Node) -> Node:
    template = builder.chat_template(section.chat_template, where, model)
    decides, rendering = builder.of_rendering(section, where, template)
    resize = isinstance(section, Sft) and section.resize
    identity = {**model.identity, "chat_template": template.text, **decides, "resize": resize}
    runtime = {**model.location, **rendering}
    return builder.add(Node("lengths", "lengths", identity, runtime, {"pool": pool, **model.parents}))

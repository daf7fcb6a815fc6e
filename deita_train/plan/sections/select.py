"""Section `select:`, which chooses rows of the pool."""

from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.embedded_rows import along_walk
from deita_train.plan.identity import decisive_trainer
from deita_train.plan.inputs import MissingSection
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder, Model
from deita_train.plan.sections.contamination import add_decontamination
from deita_train.plan.sections.embedding import add_embedded
from deita_train.recipe.model_sections import Rendered, Sft
from deita_train.recipe.schema import ReadAs, Select, Strata
from deita_train.selection.settings import (
    DIMENSIONS,
    EMBEDDING_CLUSTERS,
    MEASURED_NUMBERS,
    Method,
    Score,
    WeightedScore,
    check_score,
    dimensions_among,
    rules_of,
    score_dimensions,
)


def add_select(builder: Builder, select: Select) -> None:
    """Add the recipe's selection."""
    add_selection(builder, "select", select)


def add_selection(
    builder: Builder, label: str, select: Select, where: str = "select.column", matched: Node | None = None
) -> Node:
    """Add a selection and what only it reads.

    Args:
        builder: the stages so far.
        label: the stage's label.
        select: the method and its settings.
        where: the place in the recipe that a message names when the method's column is missing.
        matched: a selection whose training tokens are the budget; None for that of `select`.
    """
    rules = rules_of(select.method, select.quality_weight)
    parents = {"pool": builder.pool("select")}
    identity: dict[str, Any] = {"method": select.method, "budget": select.plain_budget}
    identity |= {name: getattr(select, name) for name in rules.settings}
    identity |= _stated(select, rules.later_settings)
    if "seed" in identity:
        identity["seed"] = builder.seed(select.seed)
    if rules.column is not None:
        _read_column(builder, select, rules, where, identity, parents)
    between = _limits(builder, select, identity)
    if between:
        identity["between"] = between
    dimensions = _read_scores(builder, select, rules, between, identity, parents)
    if dimensions:
        identity |= {"score_turns": select.score_turns, "only_trained_turns": select.only_trained_turns}
    if select.strata is not None:
        identity["strata"] = _plain_strata(builder, select.strata)
    if rules.embeddings or (select.strata is not None and select.strata.by == EMBEDDING_CLUSTERS):
        parents["embed"] = builder.either("embeddings", "embed", "select", "embedding: or embeddings:")
        identity |= how_compared(builder)
    if rules.target:
        parents["target"] = _add_target(builder, select)
    if select.in_tokens or identity.get("only_trained_turns") or "unit" in identity or matched:
        parents["lengths"], how = add_lengths(builder, select, parents["pool"])
        identity |= how
    contamination = add_decontamination(builder, select, parents["pool"])
    if contamination is not None:
        parents["contamination"] = contamination
    if matched is not None:
        identity["match"], parents["matched"] = "tokens", matched
    counts_as: dict[str, Node | None] = {}
    if "embed" in parents:
        parents["embed"], counts_as = along_walk(builder, identity, parents)
    runtime: dict[str, Any] = {"allow_fewer": select.allow_fewer}
    launch = builder.inputs.optional_launch(select.launch, "select.launch") if rules.launch else None
    if launch is not None:
        runtime["launch"] = launch
    return builder.add(Node(label, "select", identity, runtime, parents, counts_as=counts_as))


def _add_target(builder: Builder, select: Select) -> Node:
    """Add the reading of the queries, and their embedding by the encoder of the pool."""
    if select.target is None:
        raise builder.inputs.error(
            "select.target",
            f"method {select.method} needs target: {{dataset: ...}}, the questions or conversations to be near to",
        )
    if select.target.embeddings is not None:
        return _given_target(builder, select.target.embeddings)
    if builder.recipe.embedding is None:
        raise builder.inputs.error(
            "select.target",
            f"method {select.method} embeds its queries by the encoder of the pool; state embedding: with the encoder "
            "in place of embeddings:, or give the queries' vectors too: target: {embeddings: FILE}.",
        )
    queries = builder.add_pool("target_data", [select.target], "select.target")
    return add_embedded(builder, builder.recipe.embedding, "embed.target", queries)


def _given_target(builder: Builder, file: str) -> Node:
    """Add the reading of the queries' vectors."""
    if builder.recipe.embeddings is None:
        raise builder.inputs.error(
            "select.target.embeddings",
            "embedding: makes the pool's vectors, and those of a file may be another encoder's; state the queries by "
            "dataset:.",
        )
    content, location = builder.inputs.file(file, "select.target.embeddings")
    return builder.add(Node("embeddings.target", "embeddings_file", {"file": content}, {"file": location}))


def _plain_strata(builder: Builder, strata: Strata) -> dict[str, Any]:
    plain: dict[str, Any] = {"by": strata.by, "share": strata.share, "seeds": "by name"}
    if strata.by == EMBEDDING_CLUSTERS:
        plain |= {"clusters": strata.clusters, "seed": builder.seed(strata.seed)}
    return plain


def _stated(select: Select, settings: Sequence[str]) -> dict[str, Any]:
    """Those of the settings that do not have their default."""
    defaults = Select.model_fields
    return {name: getattr(select, name) for name in settings if getattr(select, name) != defaults[name].default}


def _limits(builder: Builder, select: Select, identity: Mapping[str, Any]) -> dict[str, list[float]]:
    """The quantile limits by the name of a number; a pair alone is of the column that the method reads."""
    if not isinstance(select.between, list):
        return select.between or {}
    if identity.get("column") in (None, "tags"):
        raise builder.inputs.error(
            "select.between",
            f"method {select.method} reads no column of numbers, of which {select.between} would be the quantiles; "
            f"name one: {{NAME: {select.between}}}.",
        )
    return {identity["column"]: select.between}


def _read_scores(
    builder: Builder,
    select: Select,
    rules: Method,
    between: Mapping[str, Any],
    identity: dict[str, Any],
    parents: dict[str, Node],
) -> tuple[Score, ...]:
    """What the score and the limits are made of; returns the dimensions whose scores are read."""
    score = rules.score or select.plain_score
    try:
        check_score(select.method, score)
    except UserError as error:
        raise builder.inputs.error("select.score", f"{error}.") from None
    dimensions = _dimensions(builder, rules, score)
    _check_scores(builder, select.method, dimensions)
    weights = {} if isinstance(score, str) or rules.scores == "none" else score["weights"]
    if dimensions or weights:
        identity["score"] = score
    limited = dimensions_among(between, _scored(builder))
    _check_scores(builder, select.method, limited)
    read = tuple(name for name in DIMENSIONS if name in (*dimensions, *limited))
    for dimension in read:
        parents[dimension] = builder.either(f"scores.{dimension}", f"score.{dimension}", "select", dimension)
    for name in (*weights, *between):
        section = MEASURED_NUMBERS.get(name)
        if section is not None and getattr(builder.recipe, section) is not None:
            parents[section] = builder.required(section, "select", f"{section}:")
    return read


def how_compared(builder: Builder) -> dict[str, Any]:
    """What is done to embeddings before they are compared. The recipe must have some."""
    embedding = builder.recipe.embeddings or builder.recipe.embedding
    assert embedding is not None
    return {"center": embedding.center, "whiten": embedding.whiten_dimensions if embedding.whiten else None}


def _read_column(
    builder: Builder, select: Select, rules: Method, where: str, identity: dict[str, Any], parents: dict[str, Node]
) -> None:
    """The column that the method reads: one of the pool's own, or what a section measures, such as `perplexity:`."""
    if select.column is not None:
        identity["column"] = select.column
    elif rules.measured and getattr(builder.recipe, rules.measured) is not None:
        parents[rules.measured] = builder.required(rules.measured, "select", f"{rules.measured}:")
        identity["column"] = rules.measured_column or select.method
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
    lacking = [name for name in dimensions if name not in _scored(builder)]
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


def _scored(builder: Builder) -> tuple[Score, ...]:
    """The dimensions of which the recipe has scores."""
    return tuple(name for name in DIMENSIONS if builder.nodes.keys() & {f"scores.{name}", f"score.{name}"})


def _dimensions(builder: Builder, rules: Method, score: Score | WeightedScore) -> tuple[Score, ...]:
    """The dimensions whose scores the selection reads; a method that can do without uses them where they exist."""
    there = _scored(builder)
    wanted = score_dimensions(score, there)
    if rules.scores == "required" or (rules.scores == "if_any" and (set(wanted) <= set(there) or score != "evol")):
        return wanted
    return ()


def add_lengths(builder: Builder, select: Select, pool: Node) -> tuple[Node, dict[str, Any]]:
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
    stated = {"budget": select.in_tokens, "unit": select.unit == "tokens"}
    stated["only_trained_turns"] = select.only_trained_turns
    field = next((f"select.{name}" for name, is_stated in stated.items() if is_stated), "compare")
    raise builder.inputs.error(
        field,
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
    assert builder.recipe.select is not None
    counts = {"resize": resize, "answer_tokens": builder.recipe.select.unit == "tokens"}
    identity = {**model.identity, "chat_template": template.text, **decides, **counts}
    runtime = {**model.location, **rendering}
    return builder.add(Node("lengths", "lengths", identity, runtime, {"pool": pool, **model.parents}))

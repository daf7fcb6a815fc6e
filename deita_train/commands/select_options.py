"""Which score files `deita-train select` is given, and whether its options suit its methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deita_train.data.places import is_pattern, is_url
from deita_train.errors import UserError
from deita_train.plan.sections.compare import selects_of
from deita_train.plan.select_fields import unread_fields
from deita_train.recipe.schema import Recipe, Select
from deita_train.selection.settings import DIMENSIONS, rules_of, score_dimensions

# Option -> what a method must read for it to have an effect.
_SERVES: Mapping[str, str] = {
    "--scores": "scores",
    "--embeddings": "embeddings",
    "--center": "embeddings",
    "--threshold": "threshold",
    "--seed": "seed",
    "--launch": "launch",
}
# What a comparison reads besides what its methods read.
_MEASURED_BY = frozenset({"scores", "embeddings"})


def dimensions_of(files: Sequence[str]) -> dict[str, str]:
    """The file of each dimension, by the columns of each file's first row.

    Raises:
        UserError: a file cannot be read or holds no scores, or two hold those of one dimension.
    """
    found: dict[str, str] = {}
    for file in files:
        columns = _columns(file)
        held = [dimension for dimension in DIMENSIONS if f"{dimension}_scores" in columns]
        if not held:
            raise UserError(
                f"--scores {file}: has neither complexity_scores nor quality_scores; its columns are "
                f"{', '.join(columns)}. Name a file that `deita-train score` wrote."
            )
        for dimension in held:
            if dimension in found:
                raise UserError(f"--scores: {found[dimension]} and {file} both hold {dimension}_scores; name one.")
            found[dimension] = file
    return found


def _columns(file: str) -> list[str]:
    from deita_train.data.sources import iter_rows

    if not (Path(file).expanduser().exists() or is_pattern(file) or is_url(file)):
        raise UserError(f"--scores {file}: does not exist (looked in {Path.cwd()}). Correct the path.")
    return list(next(iter_rows(file)).row)


def check_select(recipe: Recipe, stated: frozenset[str]) -> None:
    """Check that the options of `select` suit its methods.

    Args:
        recipe: what the options became.
        stated: the names of the options that were given.

    Raises:
        UserError: a method lacks an option, or an option has no effect on any method.
    """
    if recipe.select is None:  # removed by --set, which the plan reports
        return
    try:
        selects = selects_of(recipe)
    except UserError as error:
        raise UserError(f"--compare: {error}") from None
    _check_effect(recipe, selects, stated)
    for option, select in zip(["--method", *["--compare"] * len(selects[1:])], selects, strict=True):
        _check_inputs(recipe, select, f"{option} {select.method}")


def _check_effect(recipe: Recipe, selects: Sequence[Select], stated: frozenset[str]) -> None:
    """Refuse an option or a field that no method reads; a comparison always reads scores and embeddings."""
    assert recipe.select is not None
    methods = [select.method for select in selects]
    read = set(_MEASURED_BY if recipe.compare is not None else ())
    read = read.union(*(rules_of(method, recipe.select.quality_weight).reads for method in methods))
    named = f"--method {methods[0]}" + (f" and --compare {','.join(methods[1:])}" if methods[1:] else "")
    useless = next((name for name, need in _SERVES.items() if name in stated and need not in read), None)
    if useless is not None:
        raise UserError(f"{useless}: would have no effect with {named}; leave it out.")
    in_tokens = recipe.compare is not None and recipe.compare.counts_tokens
    for name in unread_fields(recipe.select, methods, in_tokens):
        if name == "read_as" and "--tokenizer" in stated:
            raise UserError(
                "--tokenizer: would have no effect with this --budget, which counts no tokens; leave it out."
            )
        raise UserError(f"--set select.{name}: would have no effect with {named}; leave it out.")


def _check_inputs(recipe: Recipe, select: Select, named: str) -> None:
    """Refuse a method whose scores, embeddings, column or tokenizer the options do not give."""
    rules = rules_of(select.method, select.quality_weight)
    if (select.in_tokens or select.only_trained_turns) and select.read_as is None:
        what = "a --budget of tokens" if select.in_tokens else "select.only_trained_turns"
        raise UserError(f"--tokenizer: {what} needs it. Name the model that will be trained.")
    there = set(DIMENSIONS) - set(_unscored(recipe, DIMENSIONS))
    wanted = score_dimensions(rules.score or select.plain_score, there) if rules.scores == "required" else ()
    lacking = [f"{dimension}_scores" for dimension in _unscored(recipe, wanted)]
    if lacking:
        raise UserError(
            f"--scores: {named} ranks by {' and '.join(wanted)}, and no file has "
            f"{' or '.join(lacking)}. Name what `deita-train score` wrote, for each dimension."
        )
    if rules.embeddings and recipe.embeddings is None and recipe.embedding is None:
        raise UserError(f"--embeddings: {named} needs it. Name what `deita-train embed` wrote.")
    is_measured = rules.measured is not None and getattr(recipe, rules.measured) is not None
    if rules.column is not None and select.column is None and not is_measured:
        can_measure = rules.measured == "perplexity"
        measured = ", or the model that measures it: --set perplexity.model=MODEL" if can_measure else ""
        raise UserError(
            f"{named}: reads a column. Name the pool's own: --set select.column=NAME"
            f"{measured if rules.measured == 'perplexity' else ''}."
        )


def _unscored(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    """The wanted dimensions for which the recipe has neither a file nor a scorer."""
    sections = [section for section in (recipe.scores, recipe.scorers) if section is not None]
    return [name for name in wanted if all(getattr(section, name) is None for section in sections)]

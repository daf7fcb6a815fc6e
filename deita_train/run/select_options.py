"""What the options of `deita-train select` mean together: which file holds which scores, and what a method reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deita_train.errors import UserError
from deita_train.recipe.schema import Recipe
from deita_train.run.sections import DIMENSIONS
from deita_train.run.select_fields import unread_fields
from deita_train.run.selecting_sections import wanted_dimensions
from deita_train.selection.needs import needs_of

# Option -> what a method must read for it to have an effect.
_SERVES: Mapping[str, frozenset[str]] = {
    "--scores": frozenset({"scores", "scores_if_any"}),
    "--embeddings": frozenset({"embeddings"}),
    "--center": frozenset({"embeddings"}),
    "--threshold": frozenset({"threshold"}),
    "--seed": frozenset({"seed"}),
    "--launch": frozenset({"launch"}),
}


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

    if not Path(file).expanduser().exists():
        raise UserError(f"--scores {file}: does not exist (looked in {Path.cwd()}). Correct the path.")
    return list(next(iter_rows(file)).row)


def check_select(recipe: Recipe, stated: frozenset[str]) -> None:
    """Raise :class:`UserError` for an option that the method lacks or that has no effect on it.

    `stated` are the names of the options that were given.
    """
    select = recipe.select
    if select is None:  # taken away by --set, which the plan tells
        return
    needs = needs_of(select.method, select.quality_weight)
    useless = next((name for name, need in _SERVES.items() if name in stated and not need & needs), None)
    if useless is not None:
        raise UserError(f"{useless}: would have no effect with --method {select.method}; leave it out.")
    for name in unread_fields(select, [select.method]):
        if name == "read_as" and "--tokenizer" in stated:
            raise UserError(
                "--tokenizer: would have no effect with this --budget, which counts no tokens; leave it out."
            )
        raise UserError(f"--set select.{name}: would have no effect with --method {select.method}; leave it out.")
    if (select.in_tokens or select.only_trained_turns) and select.read_as is None:
        what = "a --budget of tokens" if select.in_tokens else "select.only_trained_turns"
        raise UserError(f"--tokenizer: {what} needs it. Name the model that will be trained.")
    wanted = wanted_dimensions(select.method, select.score) if "scores" in needs else ()
    lacking = [f"{dimension}_scores" for dimension in _unscored(recipe, wanted)]
    if lacking:
        raise UserError(
            f"--scores: --method {select.method} ranks by {' and '.join(wanted)}, and no file has "
            f"{' or '.join(lacking)}. Name what `deita-train score` wrote, for each dimension."
        )
    if "embeddings" in needs and recipe.embeddings is None and recipe.embedding is None:
        raise UserError(f"--embeddings: --method {select.method} needs it. Name what `deita-train embed` wrote.")


def _unscored(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    """The wanted dimensions for which the recipe has neither a file nor a scorer."""
    sections = [section for section in (recipe.scores, recipe.scorers) if section is not None]
    return [name for name in wanted if all(getattr(section, name) is None for section in sections)]

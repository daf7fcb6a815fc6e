"""Fields of `select:` that no method reads are refused, because they would have no effect."""

from collections.abc import Iterable

from deita_train.errors import UserError
from deita_train.recipe.loading import LoadedRecipe
from deita_train.recipe.schema import Select
from deita_train.recipe.yaml_source import load_yaml
from deita_train.selection.settings import METHODS, rules_of

# What `select:` says for every method; the seed, because sweeps move it together with other sections' seeds.
_OF_ALL = frozenset({"method", "budget", "allow_fewer", "seed", "between", "strata", "decontaminate"})


def unread_fields(select: Select, methods: Iterable[str], in_tokens: bool = False) -> list[str]:
    """The fields that none of these methods reads and that do not have their default, which holds unstated too.

    `in_tokens` says that another cell's budget is one of tokens.
    """
    read = _OF_ALL.union(*(rules_of(method, select.quality_weight).reads for method in methods))
    counted = (select.only_trained_turns and "only_trained_turns" in read) or (
        select.unit == "tokens" and "unit" in read
    )
    if in_tokens or select.in_tokens or counted:
        read |= {"read_as"}
    defaults = {name: field.default for name, field in Select.model_fields.items()}
    return [name for name, default in defaults.items() if name not in read and getattr(select, name) != default]


def check_select_fields(loaded: LoadedRecipe) -> None:
    """Raise :class:`UserError` for a field that none of the recipe's methods reads.

    Those are the methods of its cells and of `compare:`, and that of the file where `--set` names another: a field that
    serves one method of a sweep may stand in the recipe that all of them share.
    """
    selects = [cell.recipe.select for cell in loaded.cells if cell.recipe.select is not None]
    stated = [select.method for select in selects if select.method != "whole_pool"]
    compare = loaded.recipe.compare
    methods = dict.fromkeys([*stated, *(compare.methods if compare is not None else ()), _of_file(loaded)])
    tried = [method for method in methods if method in METHODS]
    in_tokens = any(select.in_tokens for select in selects) or (compare is not None and compare.counts_tokens)
    for select in selects:
        for name in unread_fields(select, tried, in_tokens):
            named = f"method{'s' if len(tried) > 1 else ''} {', '.join(tried)}"
            raise UserError(f"{loaded.path}: select.{name}: would have no effect with {named}; leave it out.")


def _of_file(loaded: LoadedRecipe) -> str:
    """The method that the file states, before `--set`."""
    select = load_yaml(loaded.path)[0].get("select")
    return str(select.get("method", "deita")) if isinstance(select, dict) else ""

"""The wording of recipe errors: values, types, and the nearest allowed name."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

BOOLEAN = "true or false"
WHOLE_NUMBER = "a whole number"
NUMBER = "a number"
TEXT = "text"
LIST = "a list"
MAPPING = "a mapping"
NULL = "null"

# YAML 1.1 read these as booleans, YAML 1.2 reads them as text.
_OLD_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})
_NUMBER_TEXT = re.compile(r"[-+]?[0-9_.]+([eE][-+]?[0-9]+)?")
_LONGEST_VALUE = 80
# What other tools and habits call a setting (docs/names.md) -> its name here.
_OTHER_NAMES = {
    "adapter": "peft", "base_model": "model", "batch_size": "global_batch_size", "cutoff_len": "max_length",
    "epochs": "num_train_epochs", "lora": "peft", "lora_modules_to_save": "modules_to_save", "lora_r": "r",
    "lora_rank": "r", "lora_target": "target_modules", "lora_target_modules": "target_modules", "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type", "max_seq_len": "max_length", "max_seq_length": "max_length",
    "micro_batch_size": "per_device_train_batch_size", "model_name_or_path": "model", "neat_packing": "packing",
    "num_epochs": "num_train_epochs", "optimizer": "optim", "pref_beta": "beta", "sample_packing": "packing",
    "sequence_len": "max_length", "steps": "max_steps", "template": "chat_template",
}  # fmt: skip
_MOST_CHOICES = 15


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the name in ``allowed`` that is most like ``name``, ignoring case; None when none is close.

    A name of at least three letters that is the beginning of allowed names gives the shortest of them. What other tools
    call a setting gives its name here.
    """
    allowed = list(allowed)
    folded = name.casefold()
    here = name_here(name)
    if here in allowed:
        return here
    by_folded = {candidate.casefold(): candidate for candidate in allowed}
    longer = [candidate for candidate in by_folded if len(folded) > 2 and candidate.startswith(folded)]
    if longer:
        return by_folded[min(longer, key=lambda candidate: (len(candidate), candidate))]
    found = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def name_here(name: str) -> str | None:
    """Return what a setting of another tool is called here; None for a name that we do not know."""
    return _OTHER_NAMES.get(name.casefold())


def either(choices: Sequence[str]) -> str:
    """Join ``choices`` for a sentence: ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]])) if choices else ""


def not_allowed(value: str, choices: Sequence[str]) -> str:
    """Say that a text is not one of ``choices``. A long list is left out when one of them is close."""
    near = nearest(value, choices)
    hint = f" (did you mean {near}?)" if near else ""
    return f"{value!r} is not allowed{hint}" + (
        f"; expected {either(choices)}" if not near or len(choices) <= _MOST_CHOICES else ""
    )


def describe(value: Any) -> str:
    """Name a value and its kind: ``'no' is text``, ``1.5 is a decimal number``."""
    return f"{_written(value)} is {_kind(value)}"


def wrong_value(value: Any, wanted: Sequence[str]) -> str:
    """Say what ``value`` is, what was expected, and what YAML 1.2 may have to do with it."""
    return f"{describe(value)}; expected {either(wanted)}{_advice(value, wanted)}"


def _written(value: Any) -> str:
    """Return ``value`` as a recipe would have it, shortened to one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "a decimal number" if math.isfinite(value) else "not finite"
    kinds: tuple[tuple[Any, str], ...] = (
        (bool, "a boolean"),
        (int, WHOLE_NUMBER),
        (str, TEXT),
        (type(None), "no value"),
        ((list, tuple, set), LIST),
        (dict, MAPPING),
    )
    return next((words for type_, words in kinds if isinstance(value, type_)), f"a {type(value).__name__}")


def _advice(value: Any, wanted: Sequence[str]) -> str:
    """Return a hint in brackets for mistakes that YAML invites, or nothing."""
    if isinstance(value, str):
        return _advice_for_text(value, wanted)
    if value is None and MAPPING in wanted:
        return " (the section is empty: fill it or remove the key)"
    if isinstance(value, bool | int | float) and TEXT in wanted:
        return " (put it in quotes)"
    if isinstance(value, dict | list) or value is None:
        return ""
    return f" (write [{_written(value)}])" if any(words.startswith(LIST) for words in wanted) else ""


def _advice_for_text(value: str, wanted: Sequence[str]) -> str:
    if BOOLEAN in wanted and value.casefold() in _OLD_BOOLEANS:
        return f" (YAML 1.2 reads {value} as text)"
    if BOOLEAN in wanted and value.casefold() in {"true", "false"}:
        return " (write it in lower case, without quotes)"
    if {WHOLE_NUMBER, NUMBER} & set(wanted) and _NUMBER_TEXT.fullmatch(value):
        return " (write it without quotes and underscores)"
    if any(words.startswith(LIST) for words in wanted):
        return f" (write [{value}])"
    return ""

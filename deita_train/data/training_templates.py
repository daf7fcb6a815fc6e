"""The form in which a model's own chat template is trained on: with the answers marked, and with a fixed date."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from deita_train.data.answer_marks import marked_answers

_DATE = "strftime_now"
# 26 July 2024 is the date that Llama 3.1's own template falls back to.
_FIXED_DATE = (
    "{% macro strftime_now(format) %}"
    "{{ {'%d %b %Y': '26 Jul 2024', '%d %B %Y': '26 July 2024', '%Y-%m-%d': '2024-07-26'}[format] }}"
    "{% endmacro %}"
)


def training_form(own: str) -> str:
    """The text by which conversations are rendered for a model whose published template is ``own``.

    A template without marks around the assistant's words is replaced by trl's training form of it, where trl has one
    (such a form renders one conversation as the original does, and earlier turns alike whatever follows). A template
    that writes today's date gets 26 July 2024, so that the same rows become the same tokens tomorrow. Anything else
    stays as it is.
    """
    text = own if marked_answers(own) else _marked_by_trl().get(own.strip(), own)
    return _FIXED_DATE + text if _DATE in text else text


def name_of_training_form(text: str) -> str | None:
    """The name of the trl template of which ``text`` is the training form, such as ``qwen3``; None for any other."""
    bare = text.removeprefix(_FIXED_DATE)
    names = (name for name, (_, marked) in _trl_templates().items() if marked == bare)
    return next(names, None)


def _marked_by_trl() -> dict[str, str]:
    return {own.strip(): marked for own, marked in _trl_templates().values()}


@cache
def _trl_templates() -> dict[str, tuple[str, str]]:
    """Name -> (published template, training form), from the files of the installed trl, without importing it."""
    spec = find_spec("trl")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = {}
    for folder in folders:
        for marked in sorted(Path(folder).glob("chat_templates/*_training.jinja")):
            name = marked.name.removesuffix("_training.jinja")
            own = marked.with_name(f"{name}.jinja")
            if own.is_file():
                found[name] = (own.read_text(encoding="utf-8"), marked.read_text(encoding="utf-8"))
    return found

"""The chat template that a section names, or the one it gets without naming one, as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deita_train.data.shipped_templates import shipped_names, shipped_template, template_name
from deita_train.errors import UserError
from deita_train.plan.node import Node

DEFAULT_CHAT_TEMPLATE = "vicuna_v1.1"
OWN = "tokenizer"


class ChatTemplate(NamedTuple):
    """A chat template.

    Attributes:
        text: by which conversations are rendered.
        published: the template that a trained model is published with; None for `text` itself.
        words: what it is and who chose it, for `plan`; not part of any key.
    """

    text: str
    published: str | None
    words: str

    def identity(self) -> dict[str, Any]:
        """What counts in the identity of a training."""
        return {"chat_template": self.text, "published_template": self.published}


def named_template(name: str, *, marked: bool) -> ChatTemplate:
    """A template of the package, or a .jinja file.

    Args:
        name: its name, or the path.
        marked: whether the template must mark the assistant's words, as a loss needs it.

    Raises:
        UserError: there is no such template, or it cannot be used.
    """
    shipped = shipped_names()
    if name in shipped:
        return ChatTemplate(shipped_template(name), None, name)
    path = Path(name).expanduser()
    if path.suffix == ".jinja" and not path.is_file():
        raise UserError(f"{name} does not exist (looked in {Path.cwd()}). Correct the path.")
    if path.suffix != ".jinja":
        allowed = ", ".join([*shipped, f"{OWN} (the model's own)"])
        raise UserError(f"{name} is unknown; allowed: {allowed}, or a .jinja file.")
    return ChatTemplate(_checked_file(path, marked), None, str(path))


def own_or_default(identity: Mapping[str, Any], location: str) -> ChatTemplate:
    """What a section gets that names no template: the model's own, or the package's default for a model without one.

    Raises:
        UserError: the model's own template cannot be read or used.
    """
    found = _own(identity, location)
    if found is None:
        words = f"{DEFAULT_CHAT_TEMPLATE}, the default for a model without a template"
        return ChatTemplate(shipped_template(DEFAULT_CHAT_TEMPLATE), None, words)
    return found


def own_template_of(identity: Mapping[str, Any], location: str) -> ChatTemplate:
    """The model's own template, asked for by name.

    Raises:
        UserError: it has none, or it cannot be read or used.
    """
    found = _own(identity, location)
    if found is None:
        raise UserError(
            f"{OWN}: {location} has no chat template of its own (a base model rarely has one); name a template instead."
        )
    return found


def made_template(maker: Node) -> ChatTemplate:
    """The template of a model that the run makes, in the words of the stage that makes it."""
    text: str = maker.identity["chat_template"]
    words = maker.runtime.get("template") or template_name(text)
    assert words is not None, f"{maker.label} trains with a template that has neither words nor a name"
    return ChatTemplate(text, maker.identity.get("published_template"), words)


def _own(identity: Mapping[str, Any], location: str) -> ChatTemplate | None:
    from deita_train.data.chat_template import check_chat_template
    from deita_train.data.training_templates import training_form
    from deita_train.plan.model_templates import TemplateAway, own_template

    try:
        own = own_template(identity, location)
    except TemplateAway as error:
        raise TemplateAway(f"{OWN}: {error}.") from None
    except UserError as error:
        raise UserError(f"{OWN}: {error}.") from None
    if own is None:
        return None
    text = training_form(own)
    try:
        check_chat_template(text, marked=False)
    except UserError as error:
        raise UserError(
            f"{OWN}: the template of {location}: {error}. Fix it in a copy, a .jinja file, and name that; or name a "
            "template of this package."
        ) from None
    return ChatTemplate(text, own if text != own else None, f"the model's own template{_form(text)}")


def _form(text: str) -> str:
    """How a model's own template is trained on, where that needs saying."""
    from deita_train.data.answer_marks import marked_answers
    from deita_train.data.training_templates import name_of_training_form

    known = name_of_training_form(text)
    if known is not None:
        return f" in trl's training form of {known}"
    return "" if marked_answers(text) else " (answers located by rendering)"


def _checked_file(path: Path, marked: bool) -> str:
    from deita_train.data.chat_template import check_chat_template

    try:
        text = path.read_text(encoding="utf-8-sig")
        check_chat_template(text, marked=marked)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason}. Save the file as UTF-8.") from None
    except UserError as error:
        raise UserError(f"{path}: {error}.") from None
    return text

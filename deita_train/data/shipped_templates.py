"""The package's own chat templates, and what a template is called. Imports nothing heavy."""

from pathlib import Path

from deita_train.data.training_templates import name_of_training_form

TEMPLATES_DIR = Path(__file__).parent / "templates"


def shipped_template(name: str) -> str:
    """The text of one of the package's own chat templates."""
    return (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")


def shipped_names() -> list[str]:
    """The names of the package's own chat templates."""
    return sorted(path.stem for path in TEMPLATES_DIR.glob("*.jinja"))


def parity_pairs_template() -> str:
    """The text of the template by which the public code writes preference pairs; no section may name it."""
    return (TEMPLATES_DIR / "parity" / "dpo_pairs.jinja").read_text(encoding="utf-8")


def template_name(text: str) -> str | None:
    """What a template is called: one of the package's, or trl's training form of a published one; None for others."""
    shipped = next((name for name in shipped_names() if shipped_template(name) == text), None)
    known = name_of_training_form(text)
    return shipped or (f"trl's training form of {known}" if known is not None else None)

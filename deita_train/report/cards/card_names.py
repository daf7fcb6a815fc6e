"""Where a model card lies in a report, and what stands in it for the model's place. Imports nothing heavy."""

FOLDER = "cards"
# Stands in the snippets until somebody knows where the model lies.
PLACE = "path/to/this/model"


def card_file(label: str, artefact: str, *, is_written: bool) -> str:
    """The name of a card: by the stage for the recipe as written, by the artefact for other cells of a sweep."""
    return f"{label}.md" if is_written else f"{artefact}.md"


def name_place(card: str, place: str) -> str:
    """The text of a card whose snippet loads the model from ``place``."""
    return card.replace(f'place = "{PLACE}"', f'place = "{place}"')

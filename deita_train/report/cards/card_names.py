"""Where a model card is in a report, and what its snippet loads the model from. Imports nothing heavy."""

FOLDER = "cards"
# Stands in the snippets until the model's place is known.
PLACE = "path/to/this/model"


def card_file(label: str, artefact: str, *, is_base: bool) -> str:
    """The name of a card: by the stage for the base run, by the artefact for the other cells of a sweep."""
    return f"{label}.md" if is_base else f"{artefact}.md"


def name_place(card: str, place: str) -> str:
    """The text of a card whose snippet loads the model from `place`."""
    return card.replace(f'place = "{PLACE}"', f'place = "{place}"')

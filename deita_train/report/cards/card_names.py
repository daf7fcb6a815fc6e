"""Where a card is in a report, and what its snippet loads from. Imports nothing heavy."""

FOLDER = "cards"
# Stand in the snippets until the place of the model or the dataset is known.
PLACE = "path/to/this/model"
DATASET_PLACE = "user/name"


def card_file(label: str, artefact: str, *, is_base: bool) -> str:
    """The name of a card: by the stage for the base run, by the artefact for the other cells of a sweep."""
    return f"{label}.md" if is_base else f"{artefact}.md"


def name_place(card: str, place: str) -> str:
    """The text of a card whose snippet loads the model or the dataset from `place`."""
    named = card.replace(f'place = "{PLACE}"', f'place = "{place}"')
    return named.replace(f'load_dataset("{DATASET_PLACE}"', f'load_dataset("{place}"')

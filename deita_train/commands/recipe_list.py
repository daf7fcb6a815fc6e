"""`deita-train recipes`: the recipes that come with the package."""

from deita_train.recipe.shipped import shipped_recipes
from deita_train.recipe.yaml_source import load_yaml
from deita_train.table import Table, words


def recipe_table() -> Table:
    """The name of each recipe, and its `description:`."""
    descriptions = {name: load_yaml(path)[0]["description"] for name, path in shipped_recipes().items()}
    rows = tuple((name, " ".join(description.split())) for name, description in descriptions.items())
    note = "`deita-train run NAME` carries one out, `deita-train recipes NAME > my.yaml` writes it out to be edited."
    return Table(words("recipe", "what it does"), rows, "", note=note)

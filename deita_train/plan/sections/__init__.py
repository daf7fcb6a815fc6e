"""One file per section of a recipe: the stages that it adds to the graph."""

"""What a run must make: the graph of a recipe, the key of each stage, how it is launched, and what is there already."""

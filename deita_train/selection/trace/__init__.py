"""The decisions of a selection, as columns and in words."""

"""Measures of a selection, and comparisons of several."""

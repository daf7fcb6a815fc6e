"""Measures of a selected subset, and comparisons of several."""

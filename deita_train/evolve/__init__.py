"""Evol Complexity and Evol Quality: chains of evolved versions, their joint ranking, and the labels that follow."""

"""Recipes: schema, loading, overrides, and the check of trainer fields. Imports nothing heavy."""

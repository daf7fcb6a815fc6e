"""Stages that read data from outside into a table with unique ids."""

"""Stages that choose rows, and compare choices."""

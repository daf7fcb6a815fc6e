"""Carries out a plan in child processes, shows its progress and collects failures. Imports nothing heavy."""

"""Complexity and quality: prompts, training pairs, the expectation over digits, the evol score."""

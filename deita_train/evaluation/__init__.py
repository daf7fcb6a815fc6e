"""Measures of models by benchmarks: questions, verdicts, rates, intervals."""

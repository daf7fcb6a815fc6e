"""Stages that measure models by benchmarks."""

"""Temperatures of MT-Bench's answers by the question's category [arXiv 2306.05685]. Imports nothing heavy."""

from collections.abc import Mapping
from types import MappingProxyType

MT_BENCH_TEMPERATURES: Mapping[str, float] = MappingProxyType(
    {
        "writing": 0.7,
        "roleplay": 0.7,
        "extraction": 0.0,
        "math": 0.0,
        "coding": 0.0,
        "reasoning": 0.0,
        "stem": 0.1,
        "humanities": 0.1,
    }
)
"""As FastChat has them."""


def temperature_of(stated: float | Mapping[str, float], category: str | None) -> float:
    """The temperature of a question: one for all, or that of its category, and 0 for any other question."""
    if isinstance(stated, Mapping):
        return 0.0 if category is None else float(stated.get(category, 0.0))
    return float(stated)

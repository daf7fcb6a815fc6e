"""The share of a peak that this project's code reaches, by this project's own measurements. Imports nothing heavy.

Each is relative to a large matrix product in the same precision, on two CPU cores. No GPU has been measured: docs
(performance.md, "On one GPU") say how, and its figures take these places.
"""

from dataclasses import dataclass

ON_CPU = "measured on a CPU"


@dataclass(frozen=True)
class Share:
    """A measured share.

    Attributes:
        value: of the peak, above 0 and at most 1.
        source: the section and table of the docs that have it, and what was measured.
    """

    value: float
    source: str


SCORING = Share(0.63, "docs/performance.md, Scoring and embedding: scoring, the engine, bfloat16, on a CPU")
EMBEDDING = Share(0.69, "docs/performance.md, Scoring and embedding: embedding, the engine, bfloat16, on a CPU")
TRAINING = Share(0.68, "docs/performance.md, Training: batches of similar length, on a CPU")
PACKED = Share(0.46, "docs/performance.md, Training: packed, on a CPU")

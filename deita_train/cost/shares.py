"""The share of a peak that this project's code reaches, by this project's own measurements. Imports nothing heavy.

Each is relative to a large matrix product in the same precision, on two CPU cores. No GPU has been measured:
docs/performance.md says how one is ("On one GPU"), and its figures then take these places.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A share of the peak.

    Attributes:
        value: above 0 and at most 1.
        work: what reaches it.
        source: where it is measured: a section of the docs; empty for one that the user states.
        on_cpu: whether it was measured on a CPU.
    """

    value: float
    work: str
    source: str = ""
    on_cpu: bool = True


SCORING = Share(0.63, "scoring", "docs/performance.md, Scoring and embedding (bfloat16)")
EMBEDDING = Share(0.69, "other passes", "docs/performance.md, Scoring and embedding (embedding in bfloat16)")
TRAINING = Share(0.68, "training", "docs/performance.md, Training (batches of similar length)")
PACKED = Share(0.46, "packed training", "docs/performance.md, Training (packed)")

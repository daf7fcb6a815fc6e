"""Datasets on the Hub that the shipped recipes name: their rows, for a plan without a network."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownDataset:
    """What is known of a dataset.

    Attributes:
        rows: by split; by an empty name, of a dataset whose only split is meant.
        tokens: of a row on average, before it is cut; None where nothing states it.
        source: what states it.
    """

    rows: Mapping[str, int]
    tokens: int | None
    source: str


_PAPER = "the DEITA paper, sections 2.1 and 3, and the dataset's card"
_CARD = "the dataset's card"
_ULTRAFEEDBACK = KnownDataset({"train_prefs": 61_135, "test_prefs": 2_000}, None, _CARD)

KNOWN_DATASETS: Mapping[str, KnownDataset] = {
    "AndrewZeng/deita_sota_pool": KnownDataset({"": 300_000}, None, _PAPER),
    "hkust-nlp/deita-redundant-pool-data": KnownDataset({"": 100_000}, None, _PAPER),
    # Most of a row lies beyond every length that is trained on.
    "hkust-nlp/deita-6k-v0": KnownDataset({"": 6_000}, 8_000, "rows read: 8 to 972 messages, about 8,000 tokens"),
    "hkust-nlp/deita-10k-v0": KnownDataset({"": 10_000}, 8_000, "as deita-6k-v0"),
    "hkust-nlp/deita-complexity-scorer-data": KnownDataset({"": 9_481, "validation": 499}, None, "its files"),
    "hkust-nlp/deita-quality-scorer-data": KnownDataset({"": 9_276, "validation": 489}, None, "its files"),
    "HuggingFaceH4/ultrafeedback_binarized": _ULTRAFEEDBACK,
    "HuggingFaceH4/mt_bench_prompts": KnownDataset({"": 80}, None, _CARD),
    "tatsu-lab/alpaca_eval": KnownDataset({"": 805}, None, _CARD),
}


def known_rows(name: str, split: str | None) -> int | None:
    """The rows of a Hub dataset's split; None where the table has none."""
    known = KNOWN_DATASETS.get(name)
    if known is None:
        return None
    return known.rows.get(split or "", known.rows.get("") if split in (None, "train") else None)

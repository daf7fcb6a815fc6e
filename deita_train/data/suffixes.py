"""Suffixes of data files, for reading and writing; imports nothing."""

from collections.abc import Collection

SUFFIXES = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Of files that are written, and read."""

READ_SUFFIXES = (*SUFFIXES, ".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst")
"""Of files that are read."""


def data_suffix(name: str, among: Collection[str] = SUFFIXES) -> str | None:
    """The suffix among some of a file's name, ignoring case; None for any other name."""
    matching = [suffix for suffix in among if name.lower().endswith(suffix)]
    return max(matching, key=len, default=None)


def suffix_family(suffix: str) -> str:
    """What files of one dataset have in common: ``.json``, which covers ``.jsonl``, ``.parquet``, ``.csv`` or ``.tsv``.

    Compression is left out.
    """
    plain = "." + suffix.split(".")[1]
    return ".json" if plain == ".jsonl" else plain

"""Suffixes of data files, for reading and writing; imports nothing."""

SUFFIXES = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def data_suffix(name: str) -> str | None:
    """The suffix among ``SUFFIXES`` of a file's name, ignoring case; None for any other name."""
    matching = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return max(matching, key=len, default=None)

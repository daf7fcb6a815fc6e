"""What a data file's name may end in, the same for reading and for writing; imports nothing."""

SUFFIXES = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def data_suffix(name: str) -> str | None:
    """The one of ``SUFFIXES`` that a file's name ends in, whatever its case; None for any other name."""
    matching = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return max(matching, key=len, default=None)

"""Faults that pass, such as a server that does not answer: after which waits the same is tried again."""

# Seconds before each further try.
WAITS = (5.0, 30.0, 120.0)


def after_tries(message: str, tries: int) -> str:
    """A message of what failed last, with the number of tries if there were several."""
    return f"{message} It was tried {tries} times." if tries > 1 else message

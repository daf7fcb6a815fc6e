"""The arithmetic of docs/scale.md: tokens, GPU hours, disk and memory of the method by the size of the pool.

    python benchmarks/scale.py
    python benchmarks/scale.py --share 0.4 --peak 312e12 --tokens 800 --gpus 1 8

It measures nothing. The costs of a row are those of the code: operations as deita_train/inference/speed.py counts them,
bytes as deita_train/inference/row_file.py and batches.py write them.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Weights that multiply each token: LLaMA-1-13B (40 layers, width 5,120, inner 13,824) as each scorer and as encoder.
WEIGHTS = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
WIDTH = 5120
TOKEN_BYTES, SCORE_BYTES, ID_BYTES, HASH_BYTES = 4, 4, 24, 40
# Of the plan: a row's place in the order, its length, and its number among all (int64, int32, int64).
PLAN_BYTES = 20
# What ranking and walk hold of each row: two columns of numbers.
RANKING_BYTES = 16
HOURS = 3600.0


@dataclass(frozen=True)
class Size:
    """A pool, what is kept of it, and how many rows the walk sees for that."""

    rows: int
    kept: int
    seen: int


# Kept and seen are those of the clustered pools of 300,000 and of a million rows in docs/performance.md; a larger pool
# of the same kind is taken to be walked as far.
SIZES = (Size(300_000, 10_000, 26_135), Size(10_000_000, 30_000, 77_316), Size(100_000_000, 30_000, 77_316))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=float, default=600, help="of a row")
    parser.add_argument("--share", type=float, default=0.5, help="of the peak that the passes reach")
    parser.add_argument("--peak", type=float, default=989e12, help="operations per second of a GPU; default: an H100's")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--rate", type=float, default=1_000, help="rows that one core encodes in a second")
    parser.add_argument("--cores", type=int, default=16, help="of the machine that prepares")
    options = parser.parse_args()
    columns = [dict(lines(size, options)) for size in SIZES]
    print(f"| | {' | '.join(f'{size.rows:,} rows' for size in SIZES)} |")
    print(f"|---|{'---:|' * len(SIZES)}")
    for title in columns[0]:
        print(f"| {title} | {' | '.join(column[title] for column in columns)} |")


def lines(size: Size, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What a pool of that size costs, line by line."""
    tokens = size.rows * options.tokens
    one_pass = pass_hours(tokens, options.peak * options.share)
    walked = pass_hours(size.seen * options.tokens, options.peak * options.share)
    yield "tokens, millions", f"{tokens / 1e6:,.0f}"
    yield "GPU hours, both scores", hours(2 * one_pass)
    yield "GPU hours, embeddings of all rows", hours(one_pass)
    yield "kept, seen by the walk", f"{size.kept:,}, {size.seen:,}"
    yield "GPU hours, embeddings of the seen rows", hours(walked)
    for gpus in options.gpus:
        yield f"hours of all three passes on {gpus} GPU{'s' if gpus > 1 else ''}", hours(3 * one_pass / gpus)
    encoding = size.rows / options.rate / options.cores / HOURS
    yield f"hours to prepare a pass on {options.cores} cores", hours(encoding)
    yield "disk, prepared token ids of a pass", in_bytes(size.rows * (TOKEN_BYTES * options.tokens + PLAN_BYTES))
    yield "disk, both tables of scores", in_bytes(2 * size.rows * (SCORE_BYTES + ID_BYTES + HASH_BYTES))
    embedded = WIDTH * 2 + ID_BYTES + HASH_BYTES
    yield "disk, embeddings of all rows in float16", in_bytes(size.rows * embedded)
    yield "disk, embeddings of the seen rows", in_bytes(size.seen * embedded)
    yield "memory, two columns of numbers of all rows", in_bytes(size.rows * RANKING_BYTES)
    yield "memory, the kept rows in float32", in_bytes(size.kept * WIDTH * 4)


def pass_hours(tokens: float, speed: float) -> float:
    """GPU hours of a pass: two operations for each weight and token."""
    return 2 * WEIGHTS * tokens / speed / HOURS


def hours(number: float) -> str:
    """Hours to three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def in_bytes(number: float) -> str:
    """A number of bytes to three digits."""
    units: Sequence[tuple[str, float]] = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
    unit, size = next((pair for pair in units if number >= pair[1]), units[-1])
    return f"{number / size:.3g} {unit}"


if __name__ == "__main__":
    main()

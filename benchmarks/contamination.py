"""Times the search for benchmarks' questions: `python benchmarks/contamination.py`.

Texts are drawn words. 200 questions of 60 words in 5,000 rows of 300 words, of which 20 repeat a question; and as many
questions as MMLU has, in the same rows.
"""

import random
import resource
import time

from deita_train.evaluation.contamination import Index, Passage, Question

WORDS = [f"{first}{second}" for first in ("ba", "ce", "di", "fo", "gu", "ha") for second in range(500)]


def main() -> None:
    """Print seconds, rows found, and the memory of the process."""
    rng = random.Random(0)
    questions = [Question(str(number), (" ".join(rng.choices(WORDS, k=60)),)) for number in range(14_042)]
    rows = [[Passage(0, "user", " ".join(rng.choices(WORDS, k=300)))] for _ in range(5000)]
    for number in range(20):
        rows[100 * number].append(Passage(1, "assistant", f"It is: {questions[number].texts[0].upper()}."))
    for asked in (questions[:200], questions):
        began = time.perf_counter()
        index = Index({"benchmark": asked})
        built = time.perf_counter()
        found = sum(map(bool, index.find(rows)))
        searched = time.perf_counter() - built
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{len(asked):,} questions, {len(rows):,} rows: index {built - began:.1f} s, search {searched:.1f} s, "
            f"{found} rows found, {memory:,.0f} MiB at most"
        )


if __name__ == "__main__":
    main()

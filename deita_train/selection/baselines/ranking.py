"""Methods that rank every row by one number and keep the first. A smaller budget keeps a prefix of a larger one."""

from collections.abc import Sequence

import numpy as np

from deita_train.data.as_text import message_text
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order
from deita_train.selection.row_ids import order_of_ids
from deita_train.selection.weighting import in_order


def top_rows(ids: Sequence[str], scores: np.ndarray, budget: int | None) -> Trace:
    """Keep the `budget` best of N scores (all if None), without a diversity filter; ties by id.

    Args:
        ids: N unique row ids.
        scores: `[N]` float64, higher is better.
        budget: rows to keep at most, at least 1.

    Raises:
        UserError: a score is nan.
    """
    return trace_of(len(ids), walk_order(ids, scores)[:budget])


def trace_of(num_rows: int, kept: Sequence[int] | np.ndarray) -> Trace:
    """The trace of a method that keeps the rows at these positions, best first, and compares nothing."""
    trace = Trace.empty(num_rows)
    trace.selection_rank[kept] = np.arange(len(kept))
    return trace


def highest_score(candidates: Candidates, budget: int) -> Trace:
    """Highest evol score, complexity or quality, summed over the turns (DEITA, Liu et al. 2023, sections 2.2 to 2.5).

    By the evol score this is DEITA without its diversity filter; by a score of weighted numbers it is `weighted`.
    """
    return top_rows(candidates.ids, candidates.scores, budget)


def by_number(candidates: Candidates, budget: int) -> Trace:
    """By the number in a column, the highest first, or the lowest, or those in the middle (`order`).

    A rating by an LLM: AlpaGasus (Chen et al. 2023); "direct scoring" in DEITA's tables. Perplexity of the response
    under a pretrained model: DEITA's Table 2 has it as a measure of complexity, and Marion et al. 2023 (arXiv
    2309.04564) find the middle of it best for pretraining. IFD (Cherry, Li et al. 2023) is the perplexity of the
    response given the instruction over that of the response alone (Superfiltering, Li et al. 2024), or the loss over
    the loss, as in Cherry's code. From 1 on the instruction does not help, which the paper takes as a sign that the two
    do not belong together; such rows are left out before.
    """
    return top_rows(candidates.ids, in_order(candidates.numbers, candidates.settings.order), budget)


def random(candidates: Candidates, budget: int) -> Trace:
    """A seeded permutation of the rows sorted by id, so that the order of the input does not matter."""
    scores = np.empty(len(candidates.ids), dtype=np.float64)
    drawn = np.random.default_rng(candidates.settings.seed).permutation(len(scores))
    scores[order_of_ids(candidates.ids)] = drawn
    return top_rows(candidates.ids, scores, budget)


def longest_response(candidates: Candidates, budget: int) -> Trace:
    """The longest answers over all assistant messages, calls and reasoning too (Zhao et al. 2024, "Long Is More").

    Counted in characters, or in the tokens that SFT would train on without a cut (`unit`).
    """
    if candidates.settings.unit == "tokens":
        return top_rows(candidates.ids, answer_tokens(candidates), budget)
    return top_rows(candidates.ids, characters(candidates, "assistant"), budget)


def answer_tokens(candidates: Candidates) -> np.ndarray:
    """How many tokens of each row SFT would train on, `[N]` float64, nan for a row that the template cannot write."""
    counts = (np.nan if number is None else number for (number,) in candidates.values("answer_tokens"))
    return np.fromiter(counts, np.float64, len(candidates.rows))


def longest_instruction(candidates: Candidates, budget: int) -> Trace:
    """Most characters over all user messages: the baseline "instruction length" of DEITA's Table 2."""
    return top_rows(candidates.ids, characters(candidates, "user"), budget)


def characters(candidates: Candidates, role: str) -> np.ndarray:
    """How many characters the messages of a role have in each row, `[N]` float64."""
    lengths = (
        sum(len(message_text(message)) for message in messages if message["role"] == role)
        for (messages,) in candidates.values("messages")
    )
    return np.fromiter(lengths, np.float64, len(candidates.rows))


def whole_pool(candidates: Candidates, budget: int) -> Trace:
    """Every row, by id, whatever the budget: what a selection is compared with."""
    return trace_of(len(candidates.ids), order_of_ids(candidates.ids))

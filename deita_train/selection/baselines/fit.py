"""Answers that fit the model to be trained: the likeliest under it, for each instruction or in the whole pool.

Zhang et al. 2025, "The Best Instruction-Tuning Data are Those That Fit" (GRAPE, arXiv 2502.04194).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deita_train.data.as_text import message_text
from deita_train.errors import UserError
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order


def fit(candidates: Candidates, budget: int) -> Trace:
    """The likeliest answer to each instruction, by its mean log-probability per token, the likeliest of all first.

    The column holds perplexities, whose logarithm is the mean log-probability but for the sign: the lowest is the
    likeliest. Rows share an instruction if all that is not the assistant's is equal, message by message. Ties go to the
    lowest id. At most one row of each instruction is kept, as in the paper; the order between instructions is ours.
    With `among` "pool" all rows are ranked and instructions play no part.

    Raises:
        UserError: no two rows share an instruction, so there is nothing to choose between.
    """
    order = walk_order(candidates.ids, -candidates.numbers)
    if candidates.settings.among == "pool":
        return trace_of(len(order), order[:budget])
    instructions = [_instruction(messages) for (messages,) in candidates.values("messages")]
    if len(order) > 1 and len(set(instructions)) == len(order):
        raise UserError(
            f"method fit chooses between answers to one instruction, and no two of the {len(order)} rows share one. "
            "Add other answers to the pool, or state select.among: pool to rank all rows by how likely they are."
        )
    first = list({instructions[place]: place for place in order[::-1].tolist()}.values())
    is_first = np.zeros(len(order), dtype=bool)
    is_first[first] = True
    return trace_of(len(order), order[is_first[order]][:budget])


def _instruction(messages: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """The role and the text of each message that is not the assistant's, without white space around it."""
    return tuple((said["role"], message_text(said).strip()) for said in messages if said["role"] != "assistant")

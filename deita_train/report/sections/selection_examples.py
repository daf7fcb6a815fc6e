"""Rows of the base run's selection to read: rejected ones beside what blocked them, kept ones, others."""

from __future__ import annotations

from deita_train.number_text import count, decimals, plural, significant
from deita_train.report.results.examples import Excerpt, SelectionExamples
from deita_train.report.sections.section import Examples, ShownRow

_REJECTED = (
    "Examples spread evenly over the rejected rows, from the nearest pair to the closest call. Similarity is the "
    "cosine of the two embeddings. Read whether the two ask for the same: where they do not, the threshold is too low "
    "or the embedding too coarse."
)
_KEPT = "The rows that the method took first."
_BESIDE = (
    "On the left the rows that the method took first, on the right rows that it did not select, spread evenly over the "
    "pool. Beside each other they are no pairs."
)


def shown_examples(examples: SelectionExamples) -> tuple[Examples, ...]:
    """The examples that there are."""
    shown = []
    if examples.rejections:
        rows = tuple(
            (f"similarity {decimals(of.similarity, 3)}", (_row("rejected", of.rejected), _row("kept", of.kept)))
            for of in examples.rejections
        )
        shown.append(Examples("Rejected rows beside the kept rows that blocked them", _REJECTED, rows))
    if examples.not_selected:
        pairs = zip(examples.kept, examples.not_selected, strict=False)
        beside = tuple(("", (_row("kept", kept), _row("not selected", other))) for kept, other in pairs)
        shown.append(Examples("Kept rows beside rows that were not selected", _BESIDE, beside))
    elif examples.kept:
        kept_rows = tuple(_row("kept", kept) for kept in examples.kept)
        shown.append(Examples("Kept rows", _KEPT, (("", kept_rows),)))
    return tuple(shown)


def _row(title: str, of: Excerpt) -> ShownRow:
    facts = [] if of.rank is None else [f"rank {count(of.rank)}"]
    facts += [] if of.evol_score is None else [f"evol score {significant(of.evol_score)}"]
    facts.append(plural(of.num_chars, "character"))
    return ShownRow(title, of.id, tuple(facts), of.text, of.num_chars - len(of.text))

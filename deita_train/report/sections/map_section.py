"""The section with the map of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from deita_train.number_text import count, plural, share
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.map_figures import rows_by_fate, rows_by_source
from deita_train.report.results.embedding_map import KEPT, OTHER, REJECTED, EmbeddingMap, read_embedding_map
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.selection.unrankable import IN_WORDS

_WHITENED = (
    "The selection compared whitened embeddings, in which no direction varies more than another; the map shows them as "
    "the encoder gave them."
)
_WALKED = " A rejected row is too similar to a kept one, and the walk did not come to the unseen."
_BY_SOURCE = "The same rows by where they are from. Those that were not kept are faint."


def map_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """The embeddings of the base run in two dimensions, with what the selection made of each row."""
    stages = summary.base_cell.stages
    select, embed = stages.get("select"), stages.get("embed", stages.get("embeddings"))
    if select is None or embed is None:
        return None
    config = select.manifest["config"]
    is_whitened = config.get("whiten") is not None
    is_centred = bool(config.get("center")) and not is_whitened
    mapped = read_embedding_map(select.folder, embed.folder, center=is_centred)
    if mapped is None:
        return None
    sentences = (
        _axes_text(mapped, is_centred),
        _WHITENED if is_whitened else "",
        _unranked_text(select),
        _missing_text(mapped, embed),
    )
    return Section("Map of the embeddings", " ".join(filter(None, sentences)), figures=_figures(mapped, select))


def _figures(mapped: EmbeddingMap, select: Artefact) -> tuple[Figure, ...]:
    """What became of the rows and, where they are from several sources, from which."""
    labels = {fate: label for fate, label in _labels(select).items() if mapped.rows[fate]}
    text = _drawn_text(mapped, labels) + (_WALKED if select.metric("threshold") is not None else "")
    by_fate = Figure("embedding-map", "Rows by what became of them", text, partial(rows_by_fate, mapped, labels))
    if len(mapped.source_rows) == 1:
        return (by_fate,)
    return by_fate, Figure("embedding-map-sources", "Rows by source", _BY_SOURCE, partial(rows_by_source, mapped))


def _labels(select: Artefact) -> dict[str, str]:
    if select.metric("threshold") is None:
        return {KEPT: "kept", OTHER: "not selected"}
    return {KEPT: "kept", REJECTED: "rejected", OTHER: "unseen"}


def _axes_text(mapped: EmbeddingMap, is_centred: bool) -> str:
    less = " less their mean," if is_centred else ""
    first, second = map(share, mapped.shares)
    sample = ""
    if mapped.sampled < mapped.embedded:
        sample = f" of {count(mapped.sampled)} among {plural(mapped.embedded, 'row')}, drawn at random"
    return (
        f"Each dot is a conversation. The embeddings,{less} at unit length, are seen along the two directions in which "
        f"they vary most (the principal components{sample}), with {first} and {second} of their variance. Dots that "
        "lie far apart are different; dots that lie together may still differ in other directions."
    )


def _drawn_text(mapped: EmbeddingMap, labels: Mapping[str, str]) -> str:
    """How many rows of each kind are drawn, and which where not all are."""
    drawn = {fate: int((mapped.fates == fate).sum()) for fate in labels}
    if all(drawn[fate] == mapped.rows[fate] for fate in labels):
        return f"{_listed([f'{count(drawn[fate])} {label}' for fate, label in labels.items()])}: all rows."
    parts = [f"{count(drawn[fate])} of {count(mapped.rows[fate])} {label}" for fate, label in labels.items()]
    return f"Drawn, not in proportion: {_listed(parts)}. Kept rows are drawn evenly by rank, others at random."


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _unranked_text(select: Artefact) -> str:
    """That rows which the selection left out beforehand are among those that it did not reach."""
    number = sum(number for reason, number in select.manifest["drops"].items() if reason in IN_WORDS)
    if not number or select.metric("threshold") is None:
        return ""
    return "Rows that could not be selected at all are among the unseen."


def _missing_text(mapped: EmbeddingMap, embed: Artefact) -> str:
    """How many rows are not on the map, and why; empty where all are."""
    if not mapped.not_embedded:
        return ""
    why = ": only those that the walk needed were embedded" if embed.metrics.get("rows_saved") else ""
    lacking = "has no embedding and is" if mapped.not_embedded == 1 else "have no embedding and are"
    return f"{plural(mapped.not_embedded, 'row')} of the pool {lacking} not on the map{why}."

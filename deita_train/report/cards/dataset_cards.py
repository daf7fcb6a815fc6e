"""Dataset cards: what manifests and metrics hold of each selection; `dataset_card.md.jinja` does the wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from deita_train.report.cards.card import StageCard, sources_of
from deita_train.report.cards.stated_licences import dataset_licence
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.selection.settings import MEASURED_NUMBERS
from deita_train.selection.unrankable import IN_WORDS

PAIRS = "dpo_pairs"
# The stages that select, with the one that read what they select from.
_READ = {"select": "pool", PAIRS: "dpo_data"}
# The Hub's classes of size: the least number of rows that is too many, and the name.
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
# What a method keeps first; docs/selection.md says more.
_METHODS = {
    "deita": "the rows with the highest score first, except those too similar to a row that is kept already",
    "evol_score": "the rows with the highest complexity times quality",
    "complexity": "the rows with the highest complexity",
    "quality": "the rows with the highest quality",
    "weighted": "the rows with the highest sum or product of several numbers",
    "random": "the rows that a seeded draw gives",
    "longest_response": "the rows with the longest answers",
    "longest_instruction": "the rows with the longest instructions",
    "direct_score": "rows by a rating in a column",
    "perplexity": "rows by the perplexity of their answers",
    "ifd": "rows by their instruction-following difficulty below 1",
    "fit": "the answers that are likeliest under a model",
    "instag": "the rows with the most tags, each round covering every tag",
    "mig": "the row that adds the most information on a graph of labels, again and again",
    "k_center": "the row farthest from all kept ones, again and again",
    "kmeans": "the rows with the highest score of each cluster, in proportion to its size",
    "facility_location": "the row that makes the kept rows represent all best, again and again",
    "gist": "rows that are good and far apart",
    "target": "the rows nearest to the questions of a task",
    "whole_pool": "all rows",
}
_COLUMNS = {
    "messages": "the conversation: role and content of each message, in order",
    "source": "where the row is from: what the data says, else the name of its file or dataset",
    "tools": "the tools that the conversation may call",
    "complexity_scores": "how complex each user turn is, from 1 to 6, by the scorer; null for none",
    "quality_scores": "how good the answer to each user turn is, from 1 to 6, by the scorer; null for none",
    "selection_score": "the number that the method ranks by; null for none",
    "answer_tokens": "tokens of the answers",
    "selection_rank": "place in the selection, from 0; the rows are in this order",
    "nearest_similarity": "cosine similarity to the most similar row that was kept before it; null for none",
    "blocked_by": "the kept row that a row was too similar to; null for every row here, because each was kept",
}
# Why something was not kept, as what is said of it.
_REASONS = {
    **IN_WORDS,
    "not_selected": "were not chosen",
    "no_value": "have no number to be ranked by",
    "not_rendered": "cannot be written by the chat template",
    "no_answer_within_max_length": "have an answer that is cut off",
}
_PAIR_COLUMNS = {
    "prompt": "the messages that both answers reply to",
    "chosen": "the better answer",
    "rejected": "the worse answer",
}
_MEASURED = {
    "perplexity": "perplexity of the answers under the model of perplexity: in the recipe",
    "ifd": "perplexity of the answers given the instructions, as a share of theirs without them",
    "direct_score": "the rating by the chat model of direct_score: in the recipe",
    "tags": "the tags by the chat model of instag: in the recipe",
}


@dataclass(frozen=True)
class DatasetCard(StageCard):
    """The card of one selection: rows of a pool, or preference pairs."""

    @property
    def is_pairs(self) -> bool:
        """Whether it holds preference pairs."""
        return self.label == PAIRS

    @property
    def rows(self) -> int:
        """How many rows were kept."""
        return int(self.item.metric("rows_out"))

    @property
    def method_words(self) -> str:
        """What the method keeps first; empty for one that is not known here."""
        return _METHODS.get(self.item.manifest["config"]["method"], "")

    @property
    def read(self) -> Artefact:
        """What was selected from, as it was read."""
        return self.cell.stages[_READ[self.label]]

    @property
    def cleaned(self) -> Artefact | None:
        """The pool without copies, where it was cleaned."""
        return None if self.is_pairs else self.cell.stages.get("clean_pool")

    @property
    def decontaminated(self) -> Artefact | None:
        """The search for rows that were removed before the selection because they repeat a benchmark's question."""
        return None if self.is_pairs else self._made_with("contamination")

    @property
    def checked(self) -> Artefact | None:
        """The search for the questions of the recipe's benchmarks: of the selected rows, or of all pairs."""
        return self.cell.stages.get("contamination.dpo_data" if self.is_pairs else "contamination.selected")

    @property
    def left_out(self) -> dict[str, int]:
        """How many of the rows were not kept, by the reason in words."""
        drops = self.item.manifest["drops"]
        return {_REASONS.get(reason, reason): number for reason, number in drops.items() if number}

    @property
    def hub_datasets(self) -> list[str]:
        """The datasets of the Hub that were selected from."""
        return list(dict.fromkeys(source["hub"] for source in sources_of(self.read) if "hub" in source))

    @property
    def licences(self) -> dict[str, Mapping[str, Any]]:
        """What each source's card says of its licence, by the source's name; empty where that is not known here."""
        return {_name_of(source): dataset_licence(source) for source in sources_of(self.read)}

    @property
    def licence(self) -> Mapping[str, Any]:
        """The licence if it is known of every source and the same; else empty."""
        first, *others = self.licences.values()
        return first if all(other == first for other in others) else {}

    @property
    def size_category(self) -> str:
        """The Hub's class of the number of rows."""
        return next((name for limit, name in _SIZES if self.rows < limit), "n>1T")

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Name, type and meaning of each column."""
        table = datasets.load_from_disk(str(self.item.folder / "data"))
        return [(name, type_words(feature), self._meaning(name)) for name, feature in table.features.items()]

    def _meaning(self, name: str) -> str:
        if name == "id":
            return f"the name of the {'pair' if self.is_pairs else 'row'}; no other has it"
        if name == "evol_score" and not self.is_pairs:
            over = "mean" if self.item.manifest["config"].get("score_turns") == "mean" else "sum"
            return f"complexity times quality, the {over} over the user turns; null for none"
        if not self.is_pairs and name in _MEASURED and self._made_with(MEASURED_NUMBERS.get(name, "instag")):
            return _MEASURED[name]
        known = {**_PAIR_COLUMNS, "source": _COLUMNS["source"]} if self.is_pairs else _COLUMNS
        return known.get(name, "from the data that was selected from")

    def _made_with(self, role: str) -> Artefact | None:
        """The artefact that the selection read in this role."""
        artefact = self.item.manifest["parents"].get(role)
        return next((item for item in self.cell.stages.values() if item.id == artefact), None)


def dataset_cards_of(summary: RunSummary) -> list[DatasetCard]:
    """A card for each selection of rows or pairs; those of the base run first."""
    found: dict[str, DatasetCard] = {}
    for cell in sorted(summary.cells, key=lambda cell: not cell.base):
        for label, read in _READ.items():
            item = cell.stages.get(label)
            if item is not None and read in cell.stages:  # of a cell that failed artefacts may be gone
                found.setdefault(item.id, DatasetCard(summary, cell, label, item))
    return list(found.values())


def type_words(feature: Any) -> str:
    """A type of `datasets` in a few words."""
    if isinstance(feature, dict):
        return "{" + ", ".join(f"{name}: {type_words(item)}" for name, item in feature.items()) + "}"
    if isinstance(feature, datasets.List | datasets.LargeList):
        return f"list of {type_words(feature.feature)}"
    return "JSON" if isinstance(feature, datasets.Json) else str(getattr(feature, "dtype", feature))


def _name_of(source: Mapping[str, Any]) -> str:
    return str(next(source[key] for key in ("hub", "builtin", "url", "name") if key in source))

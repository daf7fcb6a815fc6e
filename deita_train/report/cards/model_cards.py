"""Model cards: what a run's manifests and metrics hold of each tuned model; `model_card.md.jinja` does the wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from deita_train.number_text import count, share, significant
from deita_train.report.cards.card import Origin, StageCard, sources_of
from deita_train.report.cards.stated_licences import base_licence
from deita_train.report.results.result_measures import (
    TUNED,
    heldout_loss,
    pair_accuracy,
    reading,
    reward_accuracy,
)
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.table import Table, numbers, words


@dataclass(frozen=True)
class Card(StageCard):
    """One model's card."""

    @property
    def models(self) -> list[str]:
        """Labels of the trainings that made the model: those of later stages of the recipe are not in it."""
        return [name for name in _up_to(self.label) if name in self.cell.stages]

    @property
    def origin(self) -> Origin:
        """The model that the run started from."""
        return self.origin_of(self.item)

    @property
    def is_adapter(self) -> bool:
        """Whether the model is published as an adapter."""
        return "frozen_parameters" in self.item.metrics and not self.item.manifest["config"]["merge_adapter"]

    @property
    def pairs(self) -> Artefact | None:
        """The preference pairs of DPO."""
        return self.cell.stages["dpo_data"] if self.label == "dpo" else None

    @property
    def chosen_pairs(self) -> Artefact | None:
        """Those of the pairs that DPO was trained on, where some were selected."""
        return self.cell.stages.get("dpo_pairs") if self.label == "dpo" else None

    @property
    def cleaned(self) -> Artefact | None:
        """The pool without copies, where it was cleaned and read."""
        return None if self.sft_rows is None or "sft_data" in self.cell.stages else self.cell.stages.get("clean_pool")

    @property
    def sft_rows(self) -> Artefact | None:
        """The pool, or the data of SFT alone; None for DPO without SFT."""
        if "sft" not in self.models:
            return None
        return self.cell.stages.get("sft_data") or self.cell.stages["pool"]

    @property
    def select(self) -> Artefact | None:
        """The selection from the pool; None where SFT has data of its own."""
        return None if "sft_data" in self.cell.stages else super().select

    @property
    def hub_datasets(self) -> list[str]:
        """Every dataset of the Hub whose rows the model learned from."""
        pretraining = self.cell.stages["pretraining_data"] if self.origin.miniature else None
        read = [item for item in (pretraining, self.sft_rows, self.pairs) if item is not None]
        return list(dict.fromkeys(source["hub"] for item in read for source in sources_of(item) if "hub" in source))

    @property
    def licence(self) -> Mapping[str, Any]:
        """What the base's card says of its licence, field by field; empty if that is not known here."""
        return base_licence(self.origin.model)

    @property
    def heldout(self) -> list[Artefact]:
        """The data that the models were measured on."""
        return [self.cell.stages[name] for name in ("heldout_data", "heldout_pairs") if name in self.cell.stages]

    @property
    def results(self) -> Table | None:
        """Each measure of this model beside those of the models before it; None where nothing was measured."""
        models = ["base", *(name for name in _up_to(self.label) if name in self.cell.planned)]
        rows = []
        for evaluation, title, read, form in _MEASURES:
            evaluated = (self.cell.stages.get(f"{evaluation}.{name}") for name in models)
            values = [None if item is None else read(item) for item in evaluated]
            if values[-1] is not None:
                rows.append((title, *("not measured" if value is None else form(value) for value in values)))
        titles = (f"before {TUNED[models[1]]}", *(f"after {TUNED[name]}" for name in models[1:]))
        return Table((*words("measure"), *numbers(*titles)), tuple(rows)) if rows else None


def cards_of(summary: RunSummary) -> list[Card]:
    """A card for each model that SFT or DPO left; those of the base run first."""
    found: dict[str, Card] = {}
    for cell in sorted(summary.cells, key=lambda cell: not cell.base):
        for label in TUNED:
            item = cell.stages.get(label)
            if item is not None:
                found.setdefault(item.id, Card(summary, cell, label, item))
    return list(found.values())


def _up_to(label: str) -> list[str]:
    names = list(TUNED)
    return names[: names.index(label) + 1]


_four_digits = partial(significant, digits=4)
# Evaluation, what is measured, where it is read, how it is written.
_MEASURES = (
    ("evaluate", "held-out rows", reading("heldout", "rows"), count),
    ("evaluate", "held-out loss per assistant token, nats", heldout_loss, _four_digits),
    ("evaluate", "held-out perplexity", reading("heldout", "perplexity"), _four_digits),
    ("evaluate_pairs", "held-out pairs", reading("pairs", "rows"), count),
    ("evaluate_pairs", "chosen answer is the likelier one", pair_accuracy, share),
    ("evaluate_pairs", "margin of log-probability, nats", reading("pairs", "margin"), _four_digits),
    ("evaluate_pairs", "reward accuracy of DPO", reward_accuracy, share),
    ("evaluate_pairs", "reward margin of DPO", reading("rewards", "margin"), _four_digits),
)

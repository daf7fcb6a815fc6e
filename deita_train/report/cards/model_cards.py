"""Model cards: what a run's manifests and metrics hold of each tuned model; `model_card.md.jinja` does the wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from deita_train.number_text import count, share, significant
from deita_train.report.cards.base_licence import base_licence
from deita_train.report.cards.card_names import card_file
from deita_train.report.results.result_measures import (
    EVOL_SCORE,
    TUNED,
    heldout_loss,
    pair_accuracy,
    reading,
    reward_accuracy,
)
from deita_train.report.results.summary import Artefact, Cell, RunSummary
from deita_train.table import Table, numbers, words


@dataclass(frozen=True)
class Origin:
    """The model that a training started from or a pass read.

    Attributes:
        through: labels of this run's trainings between that model and the artefact, the last one first.
        model: the model as the manifest identifies it; empty for a miniature.
        miniature: the stage that made the model in this run.
    """

    through: tuple[str, ...]
    model: Mapping[str, Any]
    miniature: Artefact | None = None

    @property
    def hub(self) -> str | None:
        """The model's id on the Hub, if it is from there."""
        return self.model.get("hub")


@dataclass(frozen=True)
class Card:
    """One model's card: the model `item`, left by the stage `label` of `cell`."""

    run: RunSummary
    cell: Cell
    label: str
    item: Artefact

    @property
    def is_base(self) -> bool:
        """Whether the model is of the base run."""
        return self.cell.base

    @property
    def file(self) -> str:
        """The card's name in the folder of cards."""
        return card_file(self.label, self.item.id, is_base=self.is_base)

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
        """The selection from the pool."""
        return None if "sft_data" in self.cell.stages else self.cell.stages.get("select")

    @property
    def scores_read(self) -> list[str]:
        """The dimensions whose scores the selection read."""
        parents = self.cell.stages["select"].manifest["parents"] if "select" in self.cell.stages else ()
        return [name for name in ("complexity", "quality") if name in parents]

    @property
    def kept_means(self) -> dict[str, Mapping[str, float]]:
        """Means over the selected rows and over the pool, by the name of the quantity."""
        if self.select is None:
            return {}
        score = self.select.metrics.get("score_mean")
        return {**self.select.metric("columns"), **({EVOL_SCORE: score} if score is not None else {})}

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

    def origin_of(self, item: Artefact) -> Origin:
        """The model that an artefact was made from: the one that this run began with, if the run made it."""
        through: list[str] = []
        while item.manifest["config"].get("model") is None:
            made_from = item.manifest["parents"]["model"]
            item = next(other for other in self.cell.stages.values() if other.id == made_from)
            if "architecture" in item.manifest["config"]:
                return Origin(tuple(through), {}, item)
            through.append(item.manifest["label"])
        return Origin(tuple(through), item.manifest["config"]["model"])


def cards_of(summary: RunSummary) -> list[Card]:
    """A card for each model that SFT or DPO left; those of the base run first."""
    found: dict[str, Card] = {}
    for cell in sorted(summary.cells, key=lambda cell: not cell.base):
        for label in TUNED:
            item = cell.stages.get(label)
            if item is not None:
                found.setdefault(item.id, Card(summary, cell, label, item))
    return list(found.values())


def sources_of(item: Artefact) -> list[Mapping[str, Any]]:
    """Where the rows of an artefact come from, as its manifest identifies them."""
    config = item.manifest["config"]
    return list(config["sources"]) if "sources" in config else [config["source"]]


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

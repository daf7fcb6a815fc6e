"""What the cards of models and of datasets have in common: whose they are, and what the artefacts were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.report.cards.card_names import card_file
from deita_train.report.results.result_measures import EVOL_SCORE
from deita_train.report.results.summary import Artefact, Cell, RunSummary


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
class StageCard:
    """The card of what the stage `label` of `cell` left, `item`."""

    run: RunSummary
    cell: Cell
    label: str
    item: Artefact

    @property
    def is_base(self) -> bool:
        """Whether it is of the base run."""
        return self.cell.base

    @property
    def file(self) -> str:
        """The card's name in the folder of cards."""
        return card_file(self.label, self.item.id, is_base=self.is_base)

    @property
    def select(self) -> Artefact | None:
        """The selection from the pool."""
        return self.cell.stages.get("select")

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


def sources_of(item: Artefact) -> list[Mapping[str, Any]]:
    """Where the rows of an artefact come from, as its manifest identifies them."""
    config = item.manifest["config"]
    return list(config["sources"]) if "sources" in config else [config["source"]]

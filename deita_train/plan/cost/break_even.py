"""Where selecting first pays: what selecting costs, against training on the whole pool instead of the selected rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from deita_train.cost.shape import sizes_of
from deita_train.plan.cost.rows import PlannedRows
from deita_train.plan.cost.stages import StageCost, epochs_of, operations_of_token, tokens_of_epoch
from deita_train.plan.models import model_of
from deita_train.plan.node import Node
from deita_train.store.artefacts import Store


@dataclass(frozen=True)
class BreakEven:
    """Operations of selecting first and of training on everything; published stages count as well.

    Attributes:
        selecting: of every stage that only the selection reads, selection included.
        selected: of the training on the selected rows.
        whole: of the same training on the whole pool.
        epochs: of that training.
        parameters: of the model that is trained.
        at_most: whether tokens are bounds, so that the point is rough.
    """

    selecting: float
    selected: float
    whole: float
    epochs: float
    parameters: int
    at_most: bool

    @property
    def pays(self) -> bool:
        """Whether selecting first takes fewer operations."""
        return self.selecting + self.selected < self.whole

    @property
    def saved_by_training(self) -> float:
        """What one training on the selected rows takes less than on the pool."""
        return self.whole - self.selected

    @property
    def trainings(self) -> float | None:
        """How many such trainings selecting once costs as much as; None where training on the pool takes no more."""
        return self.selecting / self.saved_by_training if self.saved_by_training > 0 else None

    @property
    def break_even_epochs(self) -> float | None:
        """The epochs at which both ways take the same."""
        return None if self.trainings is None else self.trainings * self.epochs

    @property
    def break_even_parameters(self) -> float | None:
        """The size of a trained model at which both ways take the same, with these epochs."""
        return None if self.trainings is None else self.trainings * self.parameters


def break_even(
    store: Store, rows: PlannedRows, nodes: Mapping[str, Node], costs: Mapping[str, StageCost]
) -> BreakEven | None:
    """The point for one cell's stages; None without a selection that is trained on, or where a number is unknown.

    Args:
        store: of the plan.
        rows: of the plan's stages.
        nodes: the cell's stages by label.
        costs: theirs by key.
    """
    sft, select = nodes.get("sft"), nodes.get("select")
    if sft is None or select is None or sft.parents.get("data") is not select:
        return None
    found = model_of(store, sft)
    sizes = None if found is None or found.config is None else sizes_of(found.config)
    pool = rows.read_by(select)
    everything, at_most = tokens_of_epoch(sft, pool)
    each = None if sizes is None else operations_of_token(sft, sizes)
    selected = costs[sft.key].operations
    # A base model that the run makes is needed either way.
    before = {node.key: node for node in select.ancestors() if node.kind != "base"}
    model_ancestors = {node.key for node in sft.parents["model"].ancestors()} if "model" in sft.parents else set()
    parts = [costs[key] for key in before if key not in model_ancestors]
    computing = [part for part in parts if part.tokens is not None or part.operations is not None or part.unknown]
    if sizes is None or each is None or everything is None or selected is None or not computing:
        return None
    if any(part.operations is None for part in computing):
        return None
    epochs = epochs_of(sft, rows.read_by(sft))
    selecting = sum(part.operations or 0.0 for part in computing)
    rough = at_most or costs[sft.key].at_most or any(part.at_most for part in computing)
    return BreakEven(selecting, selected, float(everything) * epochs * each, epochs, sizes.weights, rough)

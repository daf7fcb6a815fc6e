"""Keeps the links from a run's folder to its models up to date, as far as they are made."""

from collections.abc import Collection, Iterator
from pathlib import Path

from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current
from deita_train.run.failures import run_lock
from deita_train.store.locks import hold
from deita_train.store.model_links import CELLS, LINKED, cell_folders, place_link, remove_dead_links


def link_models(plan: Plan, without: Collection[str] = ()) -> list[Path]:
    """Let every cell's links lead to its models; others stay as long as the models of earlier runs are there.

    Args:
        plan: the run's plan.
        without: ids of artefacts that count as not made, such as those that are to be rebuilt.

    Returns:
        What stands in the place of a link, and was left there.
    """
    with hold(run_lock(plan), None, "links", on_wait=lambda holder: None):  # held for a moment: nothing to report
        made = {
            link: node
            for link, node in _links(plan)
            if node.id not in without and is_current(plan.store, node) and _model(plan, node).is_dir()
        }
        remove_dead_links(plan.run_dir, without)
        return [link for link, node in made.items() if not place_link(link, _model(plan, node))]


def link_stage(plan: Plan, node: Node) -> None:
    """Let the links of one stage that was just published lead to its model, in every cell that has it."""
    if node.label in LINKED:
        with hold(run_lock(plan), None, "links", on_wait=lambda holder: None):
            for link, other in _links(plan):
                if other.id == node.id:
                    place_link(link, _model(plan, node))


def _links(plan: Plan) -> Iterator[tuple[Path, Node]]:
    """Each link that a complete run has, with the stage whose model it leads to."""
    folders = cell_folders(cell.label for cell in plan.cells if not cell.is_base)
    for cell in plan.cells:
        folder = plan.run_dir if cell.is_base else plan.run_dir / CELLS / folders[cell.label]
        yield from ((folder / label, cell.nodes[label]) for label in LINKED if label in cell.nodes)


def _model(plan: Plan, node: Node) -> Path:
    return plan.store.path(node.id) / "model"

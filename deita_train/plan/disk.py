"""The disk space that the trainings of a plan need for checkpoints and models, against what is free."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deita_train.models.weight_shapes import Shapes
from deita_train.plan.launch import Launch
from deita_train.plan.models import model_of
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, PlannedStage
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.training.sizes import CHECKPOINTS_AT_ONCE, TrainingSize, training_size


@dataclass(frozen=True)
class Disk:
    """The disk space of a plan's trainings.

    Attributes:
        at_most: the most that they need at once, in bytes.
        free: what is free, in bytes.
        sizes: the labels of the trainings of each size; in a sweep a label may stand there several times.
        unknown: for each label of unknown size the reason.
    """

    at_most: int
    free: int
    sizes: Mapping[TrainingSize, Sequence[str]]
    unknown: Mapping[str, str]

    @property
    def fits(self) -> bool:
        """Whether what is known fits."""
        return self.at_most <= self.free


def plan_disk(plan: Plan, stages: Sequence[PlannedStage]) -> Disk | None:
    """The disk space that the trainings still to run need, one after another; None where none is to run.

    Models stay; checkpoints go when their stage is published. What an interrupted training has on disk is not counted.
    """
    waiting = [stage.node for stage in stages if stage.status != "done" and STAGE_KINDS[stage.node.kind].trains]
    if not waiting:
        return None
    at_most = published = 0
    sizes: dict[TrainingSize, list[str]] = {}
    unknown: dict[str, str] = {}
    for node in waiting:
        size = node_size(plan, node)
        if isinstance(size, str):
            unknown[node.label] = size
            continue
        there = _bytes_in(plan.store.work_path(node.id) / "checkpoints")
        at_most = max(at_most, published + size.at_most - there)
        published += size.published
        sizes.setdefault(size, []).append(node.label)
    return Disk(at_most, _free(plan.runs_dir), sizes, unknown)


def disk_lines(plan: Plan, stages: Sequence[PlannedStage]) -> Iterator[str]:
    """Lines on what the trainings need, on those of unknown size, and a warning where it does not fit."""
    disk = plan_disk(plan, stages)
    if disk is None:
        return
    if disk.sizes:
        wanted, free = in_bytes(disk.at_most), in_bytes(disk.free)
        yield f"Disk for checkpoints and models: at most {wanted} at once; {free} are free in {plan.runs_dir}."
    for size, labels in disk.sizes.items():
        yield f"  {_counted(labels)}: {_words(size)}"
    for label, why in disk.unknown.items():
        yield f"  {label}: unknown, because {why}"
    if not disk.fits:
        lacking = in_bytes(disk.at_most - disk.free)
        yield f"warning: {plan.runs_dir} lacks {lacking}. Free them, or name a folder on another disk with --runs."


def node_size(plan: Plan, node: Node) -> TrainingSize | str:
    """What one training needs, or why it is unknown."""
    shapes = _shapes(plan, node)
    if isinstance(shapes, str):
        return shapes
    launch = Launch.from_dict(node.runtime["launch"])
    size = training_size(
        shapes,
        {**node.identity["trainer"], **node.runtime["trainer"]},
        distributed_type=launch.distributed_type,
        zero_stage=launch.zero_stage if launch.distributed_type == "DEEPSPEED" else None,
        use_cpu=launch.use_cpu,
        peft=node.identity.get("peft"),
        merge_adapter=bool(node.identity.get("merge_adapter")),
    )
    return "its adapter's layers are found when the model is loaded" if size is None else size


def in_bytes(number: int) -> str:
    """``87.1 GB``, ``262 kB``: a number of bytes to three digits."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return f"{number} bytes"


def _counted(labels: Sequence[str]) -> str:
    """``base, sft x 12, dpo``."""
    return ", ".join(f"{label} x {number}" if number > 1 else label for label, number in Counter(labels).items())


def _words(size: TrainingSize) -> str:
    return (
        f"{size.trained:,} trained parameters, up to {CHECKPOINTS_AT_ONCE} checkpoints of {in_bytes(size.checkpoint)}, "
        f"then a model of {in_bytes(size.published)}"
    )


def _shapes(plan: Plan, node: Node) -> Shapes | str:
    """The weights that a training starts from, or why they are not known."""
    found = model_of(plan.store, node)
    assert found is not None, f"{node.label} trains a model"
    return found.shapes or found.why


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _free(folder: Path) -> int:
    """The free bytes of the disk that a folder lies on, or will."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free

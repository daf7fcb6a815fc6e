"""A comparison of selections as figures: each method in a plane of two measures, and the rows that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from deita_train.report.figures.drawing import WIDTH_INCHES, draw_legend, legend_shape, picture
from deita_train.report.figures.method_figures import Plane, draw_overlap, overlap_height
from deita_train.selection.measures.compared import Comparison, Measured


@dataclass(frozen=True)
class _Axis:
    """A quantity that may be an axis: its name, and its value for a selection, None where it has none."""

    title: str
    read: Callable[[Measured], float | None]


# The first two that every selection has span the plane, the first of them upwards.
_AXES = (
    _Axis("NovelSum (higher is more diverse)", lambda item: item.diversity.novel_sum if item.diversity else None),
    _Axis("mean score of the selected rows", lambda item: item.composition.mean_score),
    _Axis("mean characters of a row", lambda item: item.composition.characters.mean),
    _Axis("mean user turns of a row", lambda item: item.composition.turns.mean),
)


def plane_of(comparison: Comparison) -> Plane:
    """NovelSum against the mean score; the rows' length and turns stand in for what is missing."""
    upwards, right = [axis for axis in _AXES if all(axis.read(item) is not None for item in _items(comparison))][:2]
    points = {name: (_number(right, item), _number(upwards, item)) for name, item in comparison.selections.items()}
    return Plane(points, right.title, upwards.title)


def _items(comparison: Comparison) -> Iterable[Measured]:
    return comparison.selections.values()


def _number(axis: _Axis, item: Measured) -> float:
    value = axis.read(item)
    assert value is not None, axis.title
    return value


def comparison_png(comparison: Comparison) -> bytes:
    """Both panels side by side, as a PNG."""
    plane, labels = plane_of(comparison), list(comparison.selections)
    columns, legend_height = legend_shape(labels)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        plane.draw(left)
        draw_legend(left, columns, labels)
        draw_overlap(right, labels, comparison.overlap)
        right.set_title("Rows that the methods share (Jaccard)", loc="left", fontsize=9)

    return picture(2 * WIDTH_INCHES, max(2.8 + legend_height, overlap_height(labels) + 0.3), draw)

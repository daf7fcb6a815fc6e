import re

import numpy as np
import pytest

from deita_train.report.figures import drawing
from deita_train.report.figures.method_figures import Plane, methods_in_plane, overlap_heat_map


def in_plane(points, upwards):
    return methods_in_plane(Plane(points, "mean score", upwards))


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_methods_are_points_at_their_score_and_diversity():
    points = {"deita": (2.0, 0.5), "random": (1.0, 0.7), "quality": (1.5, 0.6)}
    svg = in_plane(points, "facility location")
    assert [text for text in texts(svg) if text in points] == list(points)
    assert {"facility location", "mean score"} <= set(texts(svg))
    found = re.findall(r'<g clip-path[^>]*>\s*<use xlink:href="[^"]*" x="([\d.]+)" y="([\d.]+)"', svg)
    (x1, y1), (x2, y2), (x3, y3) = [tuple(map(float, place)) for place in found]
    assert x2 < x3 < x1 and y2 < y3 < y1  # SVG counts downwards
    assert (x3, y3) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1e-3)


def test_more_methods_than_colours_are_distinguishable():
    svg = in_plane({f"method {i}": (i, i) for i in range(12)}, "diversity")
    found = re.findall(r'<g clip-path[^>]*>\s*<use xlink:href="#([^"]*)" [^>]*style="fill: (#[0-9a-f]{6})', svg)
    assert len(found) == len(set(found)) == 12


def test_one_method():
    assert "deita" in texts(in_plane({"deita": (1.0, 0.5)}, "diversity"))


def test_the_overlap_is_a_labelled_map():
    overlap = np.array([[1, 0.25, 0], [0.25, 1, 0.5], [0, 0.5, 1]])
    svg = overlap_heat_map(["deita", "random", "<quality>"], overlap)
    found = texts(svg)
    labels = ["deita", "random", "&lt;quality&gt;"]
    assert found == [*labels, *labels, *(f"{value:.2f}" for value in overlap.ravel())]
    shades = [float(alpha) for alpha in re.findall(r"fill: #0072b2; opacity: ([\d.]+)", svg)]
    assert shades == pytest.approx([0.6, 0.15, 0.15, 0.6, 0.3, 0.3, 0.6])  # what is 0 is not drawn


def test_many_methods_have_no_numbers():
    labels = [f"m{i}" for i in range(13)]
    assert texts(overlap_heat_map(labels, np.eye(13))) == labels * 2


def test_figures_can_be_shown_light_or_dark():
    for svg in (in_plane({"a": (1, 2)}, "d"), overlap_heat_map(["a"], np.eye(1))):
        assert set(re.findall(r": (#[0-9a-f]{6})", svg)) <= set(drawing.THEME)
        assert "var(--fig-series-0" in drawing.themed(svg)

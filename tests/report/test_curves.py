import re

import pytest

from deita_train.report.figures import curves
from deita_train.report.figures.curves import Curve, Level, SweptLine
from deita_train.report.figures.drawing import WIDTH_INCHES, legend_shape
from deita_train.report.statistics import estimate

BUDGETS = {100: "100", 300: "300", 1000: "1,000", 3000: "3,000"}


def over(lines, levels=(), ticks=BUDGETS, **more):
    return curves.estimates_over("loss", ("budget", "loss"), lines, levels, ticks, **more)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def line(label, shift=0.0):
    return SweptLine(label, tuple((budget, (2 + shift, 2.1 + shift, 2.2 + shift)) for budget in BUDGETS))


def test_ticks_are_the_swept_values_and_the_legend_keeps_the_order():
    svg = over([line("deita"), line("random", 0.3)], [Level("whole pool", (2.0, 2.1))], reference=("before SFT", 2.5))
    found = texts(svg)
    assert found[: len(BUDGETS)] == list(BUDGETS.values())
    assert [text for text in found if text in ("deita", "random", "whole pool", "before SFT")] == [
        "deita", "random", "whole pool", "before SFT",
    ]  # fmt: skip


def test_ticks_that_would_touch_are_slanted():
    assert "rotate(-35" not in over([line("deita")])
    close = {1000: "1,000", 1100: "1,100", 30000: "30,000"}
    svg = over([SweptLine("deita", tuple((budget, (2.0,)) for budget in close))], ticks=close)
    assert svg.count("rotate(-35") == 3


def test_values_of_zero_or_below_have_a_linear_axis():
    ticks = {0: "0", 0.5: "0.5", 1.0: "1.0"}
    places = []
    for values in (ticks, {value + 1: text for value, text in ticks.items()}):
        svg = over([SweptLine("deita", tuple((value, (2.0,)) for value in values))], ticks=values)
        drawn = [float(x) for x in re.findall(r'<use xlink:href="#[^"]*" x="([\d.]+)" y="[\d.]+"', svg)[:3]]
        places.append((drawn[1] - drawn[0]) / (drawn[2] - drawn[0]))
    # Half way on a linear axis; on a logarithmic one from 1 to 2, 1.5 is at log2(1.5).
    assert places == pytest.approx([0.5, 0.58496], abs=1e-3)


def test_a_reference_that_would_flatten_the_data_does_not_fit():
    # The data spans 0.2; with a reference 0.5 above, 0.2 of 0.7 is less than the least share, with one 0.4 above not.
    assert not curves.fits(2.7, [2.0, 2.2])
    assert curves.fits(2.6, [2.0, 2.2])
    assert curves.fits(2.1, [2.0, 2.2])
    assert curves.fits(9.0, [2.0])


def test_the_interval_of_two_seeds_does_not_flatten_the_others():
    # Two seeds 0.1 apart: half width 12.7062 * 0.05 = 0.635; all values span 1, of which 1.5 may be added.
    measured = [(2.0, 2.1), (3.0,)]
    assert curves.axis_range([2.0, 2.1, 3.0], list(map(estimate, measured))) == pytest.approx(
        (2.05 - 0.6353, 3.0), abs=1e-3
    )
    assert not curves.cuts(measured)
    # Alone they span 0.1: their interval is cut 0.15 beyond them.
    assert curves.axis_range([2.0, 2.1], [estimate([2.0, 2.1])]) == pytest.approx((1.85, 2.25))
    assert curves.cuts([(2.0, 2.1)])


def test_percentages_stay_within_their_range():
    svg = over([SweptLine("deita", tuple((budget, (97.0, 99.0)) for budget in BUDGETS))], unit="%")
    shown = [float(text.rstrip("%")) for text in texts(svg) if text.endswith("%")]
    assert shown and max(shown) <= 100


@pytest.mark.parametrize("length", [3, 12, 25, 60])
def test_a_legend_is_no_wider_than_its_panel(length):
    columns, height = legend_shape(["x" * length] * 7)
    assert columns * (0.085 * length + 0.5) <= WIDTH_INCHES or columns == 1
    assert height == pytest.approx(0.19 * -(-7 // columns))


def test_a_training_curve_has_its_level_and_its_name():
    curve = Curve("deita", (1, 2, 3), (0.69, 0.6, 0.5))
    svg = curves.training_curves("dpo-loss", "loss", ["deita", "random"], [curve], (0.6931, "ln 2 = 0.693"))
    assert "ln 2 = 0.693" in texts(svg) and "deita" not in texts(svg)
    both = curves.training_curves("dpo-loss", "loss", ["deita", "random"], [curve, Curve("random", (1, 2), (1.0, 2.0))])
    assert [text for text in texts(both) if text in ("deita", "random")] == ["deita", "random"]

import re
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deita_train.report.figures import curves, drawing
from deita_train.report.figures import stage_figures as figures


def test_a_colour_of_a_figure_follows_the_page():
    values = {"a": [1.0, 2.0], "b": [], "c": [1.5]}
    svg = curves.estimates_by_group("loss", "loss", values, 1.2)
    assert svg == curves.estimates_by_group("loss", "loss", values, 1.2)
    left = re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", drawing.themed(svg)))
    assert set(left) <= {"#000000"}


def test_long_names_of_groups_fit_and_keep_their_colours():
    labels = [f"a long method's name, budget {budget},000, center true" for budget in range(1, 9)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.estimates_by_group("loss", "loss", {label: [1.0, 2.0] for label in labels})
        curves.training_curves("loss", "loss", labels, [curves.Curve(label, (1, 2), (2.0, 1.0)) for label in labels])
        # The second group keeps the second colour when the first has no run.
        svg = curves.training_curves("loss", "loss", ["a", "b"], [curves.Curve("b", (1, 2), (2.0, 1.0))])
    assert drawing.series_colour(1) in svg and drawing.series_colour(0) not in svg


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 30))
def test_length_bins_hold_every_row(lengths, num_kept):
    pool = np.array(lengths, dtype=float)
    shares = []
    original = figures._compared_histogram

    def count_rows(name, title, axis, pool, selected, bins, log=False):
        shares.append((np.histogram(pool, bins)[0].sum(), len(pool)))
        return ""

    figures._compared_histogram = count_rows
    try:
        figures.length_distribution(pool, pool[:num_kept])
    finally:
        figures._compared_histogram = original
    assert shares[0][0] == shares[0][1]

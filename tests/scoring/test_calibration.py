import numpy as np
import pytest

from deita_train.errors import UserError
from deita_train.scoring.calibration import heldout_measures


def measured(scores, labels):
    return heldout_measures(np.array(scores, dtype=np.float64), np.array(labels, dtype=np.float64))


def test_by_hand():
    found = measured([2.0, 3.0, 4.0, 5.0], [1, 2, 6, 6])
    # Ranks 1 2 3 4 against 1 2 3.5 3.5: covariance 4.5 over the roots of 5 and of 4.5.
    assert found["rank_correlation"] == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    # Differences 1, 1, -2, -1.
    assert (found["mean_absolute_error"], found["bias"]) == (1.25, -0.25)
    # Scores about 3.5: -1.5 -0.5 0.5 1.5, squares 5; labels about 3.75: -2.75 -1.75 2.25 2.25, products 9.5.
    assert found["calibration_slope"] == pytest.approx(1.9)
    assert found["calibration_intercept"] == pytest.approx(3.75 - 1.9 * 3.5)
    assert found["by_label"] == [
        {"label": 1, "rows": 1, "mean_score": 2.0},
        {"label": 2, "rows": 1, "mean_score": 3.0},
        {"label": 6, "rows": 2, "mean_score": 4.5},
    ]


@pytest.mark.parametrize(
    ("scores", "slope", "intercept", "bias"),
    [
        ([1, 2, 3, 4], 1, 0, 0),
        ([2, 3, 4, 5], 1, -1, 1),  # one too high everywhere
        ([2, 2.5, 3, 3.5], 2, -3, 0.25),  # too close together
    ],
)
def test_what_slope_intercept_and_bias_say(scores, slope, intercept, bias):
    found = measured(scores, [1, 2, 3, 4])
    line = (found["calibration_slope"], found["calibration_intercept"])
    assert line == pytest.approx((slope, intercept)) and found["bias"] == pytest.approx(bias)
    assert found["rank_correlation"] == pytest.approx(1)


def test_it_is_the_line_of_least_squares():
    rng = np.random.default_rng(5)
    scores, labels = rng.uniform(1, 6, 40), rng.integers(1, 7, 40).astype(np.float64)
    found = heldout_measures(scores, labels)
    slope, intercept = np.polyfit(scores, labels, 1)
    assert (found["calibration_slope"], found["calibration_intercept"]) == pytest.approx((slope, intercept))
    assert sum(entry["rows"] for entry in found["by_label"]) == 40


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize(("scores", "labels"), [([1, 2], [3, 3]), ([2, 2], [1, 3]), ([2], [2])])
def test_what_has_no_order_is_refused(scores, labels):
    with pytest.raises(UserError, match=rf"undefined \({len(labels)} rows, .* Give more varied held-out rows"):
        measured(scores, labels)

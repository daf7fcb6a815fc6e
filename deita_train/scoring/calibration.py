"""How well a scorer does on labelled rows that it has not seen: whether the order is right, and the numbers."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from deita_train.errors import UserError


def heldout_measures(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Measures of predicted scores against labels.

    Args:
        scores: `[N]` float64, each an expectation over 1 to 6.
        labels: `[N]` float64.

    Returns:
        `rank_correlation` is Spearman's. `mean_absolute_error` is the mean of |score - label|, and `bias` that of
        score - label: above 0 the scorer scores too high. `calibration_slope` and `calibration_intercept` belong to the
        least-squares line label = intercept + slope * score: 1 and 0 for a scorer that is right on average at every
        score; a slope below 1 means that its scores are too far apart, one above 1 that they are too close together.
        `by_label` has the number of rows and the mean score of each label, in order.

    Raises:
        UserError: all labels or all scores are equal, so there is no order.
    """
    correlation = float(spearmanr(scores, labels).statistic)
    if not np.isfinite(correlation):
        raise UserError(
            f"the held-out rank correlation is undefined ({len(labels)} rows, {len(set(labels.tolist()))} different "
            f"labels, {len(set(scores.tolist()))} different scores). Give more varied held-out rows."
        )
    centred = scores - scores.mean()
    slope = float((centred * (labels - labels.mean())).sum() / (centred**2).sum())
    return {
        "rank_correlation": correlation,
        "mean_absolute_error": float(np.abs(scores - labels).mean()),
        "bias": float((scores - labels).mean()),
        "calibration_slope": slope,
        "calibration_intercept": float(labels.mean() - slope * scores.mean()),
        "by_label": [_of_label(label, scores[labels == label]) for label in sorted(set(labels.tolist()))],
    }


def _of_label(label: float, scores: np.ndarray) -> dict[str, Any]:
    return {"label": int(label), "rows": len(scores), "mean_score": float(scores.mean())}

"""Win rates that a judge's liking of long answers does not raise: as AlpacaEval publishes it, and a simple one.

The published one [arXiv 2404.04475] fits a logistic regression without intercept to the preferences, with three terms:
tanh of the difference in length over its deviation, the difficulty of the instruction, and the model. The win rate is
the mean of what it predicts for equal lengths. Its penalty is drawn towards the baseline by answers of two "gamed"
baselines, which only differ from it in length. It needs two published files.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deita_train.errors import UserError

_DIFFICULTY, _MODEL, _INDEX = "instruction_difficulty", "not_gamed_baseline", "index"
_GAMED_COLUMNS = (_INDEX, "preference", "std_delta_len", _DIFFICULTY, _MODEL)
# Each of the two gamed baselines counts half of this.
_GAMED_WEIGHT = 0.2
_NUM_GAMED = 2
_SPLITS, _SEED = 5, 123
# Of the simple rate: little, so that only a model that always wins or always loses is held back by it.
_SIMPLE_STRENGTH = 100.0
# The two files are rounded differently.
_SAME_DIFFICULTY = 1e-3


@dataclass(frozen=True)
class PublishedTerms:
    """What the two published files hold.

    Attributes:
        difficulty: of each instruction [instructions], in the order of AlpacaEval's file.
        gamed_features: of the gamed baselines' answers [rows, 3]: length, difficulty, model.
        gamed_shares: their preferences [rows], 0 to 1.
    """

    difficulty: np.ndarray
    gamed_features: np.ndarray
    gamed_shares: np.ndarray


@dataclass(frozen=True)
class LengthControlled:
    """A fitted regression.

    Attributes:
        win_rate: in percent, for equal lengths.
        coefficients: of the terms; published are those of length, difficulty and model.
    """

    win_rate: float
    coefficients: tuple[float, ...]


def length_differences(baseline: Sequence[str], outputs: Sequence[str]) -> np.ndarray:
    """The baseline's characters minus the model's over their standard deviation [questions]; zeros if all are equal."""
    differences = np.array([len(one) for one in baseline], np.float64) - [len(one) for one in outputs]
    deviation = differences.std(ddof=1) if len(differences) > 1 else 0.0
    return differences / deviation if deviation > 0 else np.zeros(len(differences))


def length_controlled(
    lengths: np.ndarray, shares: np.ndarray, positions: Sequence[int], terms: PublishedTerms
) -> LengthControlled:
    """The published length-controlled win rate.

    Args:
        lengths: of `length_differences` [questions].
        shares: the preference for the model [questions], 0 to 1; NaN where there is none.
        positions: of the questions in AlpacaEval's file.
        terms: of the published files.
    """
    difficulty = terms.difficulty[np.asarray(positions)]
    own = np.column_stack([np.tanh(lengths), difficulty, np.ones(len(lengths))])
    judged = ~np.isnan(shares)
    features = np.concatenate([terms.gamed_features, own[judged]])
    targets = np.concatenate([terms.gamed_shares, shares[judged]])
    num_gamed, num_own = len(terms.gamed_features), int(judged.sum())
    weights = np.repeat([_GAMED_WEIGHT / _NUM_GAMED, 1.0], [num_gamed, num_own])
    fitted = _fit(features, targets, weights)
    # Of every question, as published, whether or not it was judged.
    equal = np.column_stack([np.zeros(len(lengths)), difficulty, np.ones(len(lengths))])
    return LengthControlled(float(fitted.predict_proba(equal)[:, 1].mean()) * 100, tuple(map(float, fitted.coef_[0])))


def published_win_rate(coefficients: Sequence[float], difficulty: np.ndarray) -> float:
    """The win rate in percent that published coefficients of length, difficulty and model mean."""
    _, of_difficulty, of_model = coefficients
    return float(np.mean(1 / (1 + np.exp(-(of_model + of_difficulty * difficulty))))) * 100


def _fit(features: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> Any:
    """The regression; each row is there twice, as a win and as a loss, weighted by its preference."""
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    twice = np.concatenate([features, features])
    wins = np.repeat([1, 0], len(features))
    true_shares, true_weights = np.concatenate([shares, 1 - shares]), np.tile(weights, 2)
    groups = np.tile(np.arange(len(features)), 2)
    with config_context(enable_metadata_routing=True):
        scoring = make_scorer(_log_loss, response_method="predict_proba", greater_is_better=False)
        model = LogisticRegressionCV(
            l1_ratios=(1.0,),
            solver="liblinear",
            fit_intercept=False,
            random_state=_SEED,
            cv=GroupKFold(_SPLITS),
            scoring=scoring.set_score_request(true_share=True, true_weight=True),
            use_legacy_attributes=False,
        ).set_fit_request(sample_weight=True)
        routed = {"groups": groups, "true_share": true_shares, "true_weight": true_weights}
        model.fit(twice, wins, sample_weight=true_shares * true_weights, **routed)
    return model


def _log_loss(wins: np.ndarray, predicted: np.ndarray, true_share: np.ndarray, true_weight: np.ndarray) -> float:
    """The weighted loss of probabilities; a row that counts as a loss has the share of losses."""
    shares = np.where(wins == 1, true_share, 1 - true_share)
    predicted = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-np.mean(true_weight * (shares * np.log(predicted) + (1 - shares) * np.log(1 - predicted))))


def length_adjusted_win_rate(lengths: np.ndarray, shares: np.ndarray) -> float:
    """A win rate in percent for equal lengths from a regression on length and model alone: not the published figure.

    Args:
        lengths: of `length_differences` [questions].
        shares: the preference for the model [questions], 0 to 1, of at least one question.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.column_stack([np.tanh(lengths), np.ones(len(lengths))])
    model = LogisticRegression(C=_SIMPLE_STRENGTH, fit_intercept=False, tol=1e-8, max_iter=10_000)
    wins = np.repeat([1, 0], len(features))
    model.fit(np.tile(features, (2, 1)), wins, sample_weight=np.concatenate([shares, 1 - shares]))
    return float(model.predict_proba([[0.0, 1.0]])[0, 1]) * 100


def read_published_terms(difficulty: Path, gamed: Path) -> PublishedTerms:
    """The published `instruction_difficulty.csv` and `df_gamed.csv`.

    Raises:
        UserError: a file is not of that form, or they are not of the same instructions.
    """
    of_instruction = _read_difficulty(difficulty)
    rows = _read_gamed(gamed)
    for line, row in enumerate(rows, start=2):
        index = int(row[_INDEX])
        if not 0 <= index < len(of_instruction):
            raise UserError(
                f"{gamed}:{line}: index {index}, and {difficulty} has {len(of_instruction):,} instructions."
            )
        if abs(of_instruction[index] - row[_DIFFICULTY]) > _SAME_DIFFICULTY:
            raise UserError(
                f"{gamed}:{line}: instruction {index} has the difficulty {row[_DIFFICULTY]:g}, and {difficulty} says "
                f"{of_instruction[index]:g}. Use two files that were published together."
            )
        of_instruction[index] = row[_DIFFICULTY]  # as published, the gamed file's own
    features = np.array([[np.tanh(row["std_delta_len"]), row[_DIFFICULTY], row[_MODEL]] for row in rows])
    return PublishedTerms(of_instruction, features, np.array([row["preference"] for row in rows]))


def _read_difficulty(path: Path) -> np.ndarray:
    rows = _csv_rows(path)
    if not rows or len(rows[0]) < 2:
        raise UserError(
            f"{path}: no table of an index and a difficulty. Name the published instruction_difficulty.csv."
        )
    column = rows[0].index(_DIFFICULTY) if _DIFFICULTY in rows[0] else len(rows[0]) - 1
    found: dict[int, float] = {}
    for line, row in enumerate(rows[1:], start=2):
        found[int(_number(path, line, row, 0))] = _number(path, line, row, column)
    if sorted(found) != list(range(len(found))):
        raise UserError(f"{path}: its first column should number the instructions from 0 to {len(found) - 1}.")
    return np.array([found[index] for index in range(len(found))])


def _read_gamed(path: Path) -> list[dict[str, float]]:
    rows = _csv_rows(path)
    header = rows[0] if rows else []
    missing = [name for name in _GAMED_COLUMNS if name not in header]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}. Name the published df_gamed.csv.")
    places = {name: header.index(name) for name in _GAMED_COLUMNS}
    found = [
        {name: _number(path, line, row, place) for name, place in places.items()}
        for line, row in enumerate(rows[1:], start=2)
    ]
    for line, row in enumerate(found, start=2):
        if row[_MODEL] != 0 or not 0 <= row["preference"] <= 1:
            raise UserError(
                f"{path}:{line}: {_MODEL} should be False and the preference between 0 and 1. Name the published file."
            )
    return found


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}. Check the path.") from None


def _number(path: Path, line: int, row: Sequence[str], place: int) -> float:
    text = row[place] if place < len(row) else ""
    if text in ("True", "False"):
        return float(text == "True")
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UserError(f"{path}:{line}: column {place + 1} should be a number, not {text[:30]!r}.")
    return value

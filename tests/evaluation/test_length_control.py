"""The length-controlled win rate against its definition, written out in an independent and slow way."""

import csv
import gzip
import json
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from deita_train.errors import UserError
from deita_train.evaluation.length_control import (
    PublishedTerms,
    length_adjusted_win_rate,
    length_controlled,
    length_differences,
    published_win_rate,
    read_published_terms,
)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def world(questions, of_length, of_difficulty, of_model, seed=0):
    """Preferences that follow the regression, of a model and of two gamed baselines."""
    draws = np.random.default_rng(seed)
    difficulty, lengths = draws.normal(-0.5, 1, questions), draws.normal(0.2, 1, questions)
    noise = draws.normal(0, 0.5, questions)
    shares = sigmoid(of_length * np.tanh(lengths) + of_difficulty * difficulty + of_model + noise)
    gamed_lengths = np.concatenate([draws.normal(0.8, 0.3, questions), draws.normal(-0.8, 0.3, questions)])
    features = np.column_stack([np.tanh(gamed_lengths), np.tile(difficulty, 2), np.zeros(2 * questions)])
    gamed = sigmoid(of_length * np.tanh(gamed_lengths))
    return lengths, shares, PublishedTerms(difficulty, features, gamed), gamed_lengths


def brute_force(lengths, shares, terms, strength):
    """The minimum of the definition's loss at one strength, by a general minimiser."""
    own = np.column_stack([np.tanh(lengths), terms.difficulty, np.ones(len(lengths))])
    features = np.concatenate([terms.gamed_features, own])
    targets = np.concatenate([terms.gamed_shares, shares])
    weights = np.repeat([0.1, 1.0], [len(terms.gamed_shares), len(shares)])

    def loss(w):
        z = features @ w
        of_rows = weights * (targets * np.logaddexp(0, -z) + (1 - targets) * np.logaddexp(0, z))
        return np.abs(w).sum() + strength * of_rows.sum()

    return minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 9999}).x


def test_it_is_the_minimum_of_its_definition_and_warns_of_nothing():
    lengths, shares, terms, _ = world(60, -1.5, 1.0, -0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = length_controlled(lengths, shares, range(60), terms)
    # Of the ten strengths from 1e-4 to 1e4 the best by cross-validation; from the fifth on they hardly differ.
    candidates = [brute_force(lengths, shares, terms, strength) for strength in np.logspace(-4, 4, 10)]
    nearest = min(candidates, key=lambda w: np.abs(w - found.coefficients).max())
    assert np.abs(nearest - found.coefficients).max() < 2e-3
    assert found.win_rate == pytest.approx(100 * sigmoid(nearest[2] + nearest[1] * terms.difficulty).mean(), abs=0.05)
    assert found.win_rate == pytest.approx(published_win_rate(found.coefficients, terms.difficulty), abs=1e-9)


def test_a_judge_that_likes_length_is_corrected():
    lengths, _, terms, _ = world(200, -2.0, 0.5, 0.0, seed=1)
    longer = lengths - 1
    shares = sigmoid(-2 * np.tanh(longer) + 0.5 * terms.difficulty)
    found = length_controlled(longer, shares, range(200), terms)
    fair = published_win_rate((0.0, 0.5, 0.0), terms.difficulty)
    assert (
        found.coefficients[0] < 0 and found.win_rate == pytest.approx(fair, abs=1.0) and 100 * shares.mean() > fair + 20
    )


def test_questions_without_a_judgement_are_predicted_too():
    lengths, shares, terms, _ = world(60, -1.5, 1.0, -0.8)
    without = shares.copy()
    without[::7] = np.nan
    found = length_controlled(lengths, without, range(60), terms)
    assert found.win_rate == pytest.approx(published_win_rate(found.coefficients, terms.difficulty), abs=1e-9)


def test_positions_say_whose_difficulty_it_is():
    lengths, shares, terms, _ = world(60, -1.5, 1.0, -0.8)
    order = np.random.default_rng(3).permutation(60)
    shuffled = PublishedTerms(terms.difficulty[order], terms.gamed_features, terms.gamed_shares)
    again = length_controlled(lengths, shares, np.argsort(order), shuffled)
    assert again == length_controlled(lengths, shares, range(60), terms)


def test_differences_in_length_are_in_deviations():
    assert length_differences(["aaaa", "aa"], ["a", "aaa"]) == pytest.approx(np.array([3, -1]) / np.sqrt(8))
    assert length_differences(["a", "b"], ["c", "d"]).tolist() == [0, 0]
    assert length_differences(["aaa"], ["c"]).tolist() == [0]


def test_the_simple_rate_is_the_win_rate_where_length_means_nothing():
    lengths = np.tile([-1.0, 1.0], 50)
    shares = np.repeat([0.3, 0.3, 0.7, 0.7], 25)
    assert length_adjusted_win_rate(lengths, shares) == pytest.approx(50.0, abs=0.1)
    assert length_adjusted_win_rate(np.zeros(40), np.full(40, 0.3)) == pytest.approx(30.0, abs=0.1)
    liked = sigmoid(-2 * np.tanh(lengths - 1))
    assert length_adjusted_win_rate(lengths - 1, liked) == pytest.approx(50.0, abs=1.0)
    assert length_adjusted_win_rate(np.zeros(3), np.ones(3)) > 90


def write_files(folder, difficulty, gamed_lengths, terms, **changed):
    with (folder / "difficulty.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["", "instruction_difficulty"], *enumerate(difficulty)])
    header = ["model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
    found = enumerate(zip(terms.gamed_shares, gamed_lengths, strict=True))
    numbered = [(n // len(difficulty), n % len(difficulty), *of_row) for n, of_row in found]
    rows = [
        dict(zip(header, (f"m{model}", index, share, length, difficulty[index], False), strict=True))
        for model, index, share, length in numbered
    ]
    rows[1] |= changed
    with (folder / "gamed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "difficulty.csv", folder / "gamed.csv"


def test_the_published_files_are_read(tmp_path):
    _, _, terms, lengths = world(12, -1.5, 1.0, -0.8)
    found = read_published_terms(*write_files(tmp_path, terms.difficulty, lengths, terms))
    assert np.allclose(found.difficulty, terms.difficulty) and np.allclose(found.gamed_shares, terms.gamed_shares)
    assert np.allclose(found.gamed_features, terms.gamed_features)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": 12}, r"gamed\.csv:3: index 12, and .* has 12 instructions"),
        ({"instruction_difficulty": 9.0}, r"gamed\.csv:3: instruction 1 has the difficulty 9, and"),
        ({"not_gamed_baseline": True}, r"gamed\.csv:3: not_gamed_baseline should be False"),
        ({"preference": 1.5}, r"gamed\.csv:3: .* the preference between 0 and 1"),
        ({"preference": "x"}, r"gamed\.csv:3: column 3 should be a number, not 'x'"),
    ],
)
def test_other_files_are_refused_with_their_line(tmp_path, changed, message):
    _, _, terms, lengths = world(12, -1.5, 1.0, -0.8)
    with pytest.raises(UserError, match=message):
        read_published_terms(*write_files(tmp_path, terms.difficulty, lengths, terms, **changed))


def test_files_of_another_form_are_refused(tmp_path):
    _, _, terms, lengths = world(12, -1.5, 1.0, -0.8)
    difficulty, gamed = write_files(tmp_path, terms.difficulty, lengths, terms)
    with pytest.raises(UserError, match="no column index, preference, std_delta_len, not_gamed_baseline"):
        read_published_terms(difficulty, difficulty)
    difficulty.write_text(",instruction_difficulty\n1,0.5\n")
    with pytest.raises(UserError, match="should number the instructions from 0 to 0"):
        read_published_terms(difficulty, gamed)
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_published_terms(tmp_path / "none.csv", gamed)


def test_the_published_coefficients_are_of_these_terms(shared):
    """The file has the model's terms in this order; the baseline's are 0, which is a win rate of one half."""
    path = shared / "data" / "alpaca_eval" / "length_controlled_coefficients.csv"
    header, *rows = list(csv.reader(path.open()))
    assert header[1:] == ["np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"]
    published = {name: tuple(map(float, values)) for name, *values in rows}
    draws = np.random.default_rng(0).normal(size=805)
    assert published_win_rate(published["gpt4_1106_preview"], draws) == 50.0
    assert np.mean([length < 0 for length, _, _ in published.values()]) > 0.9  # the judge likes long answers
    ranked = sorted(published, key=lambda name: -published_win_rate(published[name], draws))
    assert ranked.index("gpt4") < ranked.index("deita-7b-v1.0") < ranked.index("phi-2-dpo")


def test_a_fit_to_published_annotations_likes_length_as_the_published_fit_does(shared):
    """Without the published difficulty no coefficient can be the same; that of length has its sign and order."""
    folder = shared / "data" / "alpaca_eval"
    rows = json.loads(
        gzip.decompress((folder / "fusechat-llama-3.2-1b.alpaca_eval_2.annotations.json.gz").read_bytes())
    )
    shares = np.array([row["preference"] for row in rows]) - 1
    lengths = length_differences([row["output_1"] for row in rows], [row["output_2"] for row in rows])
    none = PublishedTerms(np.zeros(len(rows)), np.zeros((2, 3)), np.full(2, 0.5))
    fitted = length_controlled(lengths, shares, range(len(rows)), none)
    assert -2.5 < fitted.coefficients[0] < -0.3
    assert fitted.win_rate == pytest.approx(length_adjusted_win_rate(lengths, shares), abs=0.2)

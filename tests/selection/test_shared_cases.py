"""Inputs on which earlier versions selected other rows, with the right ones."""

import json

import datasets
import numpy as np
import pytest

from deita_train.data.given_columns import given_embeddings
from deita_train.selection.candidates import Candidates
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import SelectionSettings


@pytest.fixture
def cases(shared):
    return shared / "cases" / "selection"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def kept(rows, settings, budget, embeddings=None):
    candidates = Candidates(datasets.Dataset.from_list(rows), settings, embeddings)
    return [candidates.ids[place] for place in select_rows(candidates, budget).kept]


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_of_bitwise_equal_rows_the_lowest_id(cases, seed):
    rows = lines(cases / "facility_location_copies" / "pool.jsonl")
    if seed is not None:
        rows = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    vectors = given_embeddings(
        str(cases / "facility_location_copies" / "vectors.jsonl"), [row["id"] for row in rows]
    ).matrix
    found = kept(rows, SelectionSettings("facility_location", quality_weight=0.0), 5, vectors)
    assert "0006" in found and "0009" not in found


@pytest.mark.parametrize("form", ["list", "comma_text", "json_text", "repr_text"])
def test_tags_in_any_form(cases, form):
    rows = lines(cases / "tags_json_text" / f"pool_{form}.jsonl")
    assert kept(rows, SelectionSettings("instag", column="tags"), 2) == ["r0", "r2"]

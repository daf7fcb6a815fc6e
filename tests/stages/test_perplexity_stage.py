"""Perplexity and IFD against plain transformers: one sequence at a time, all logits, float64 log-softmax."""

import math
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from pass_stages import carry_out, conversations, make_model, pass_context

from deita_train.errors import UserError
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.inference import perplexity
from deita_train.stages.rows import answers_alone
from deita_train.stages.selecting import select
from deita_train.training.rows import LabelledRow

ROWS = conversations(12)


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(folder / "model", request.param)
    return folder


def losses(model, ids):
    """Of each token but the first, float64 [T - 1]."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return -logits.double().log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def reference(plain, messages, max_length):
    """Perplexity, IFD and tokens of the assistant, with the ids that any user of the template gets."""
    model, tokenizer = plain
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"][:max_length], encoded["assistant_masks"][:max_length]
    given = losses(model, ids)[torch.tensor(mask[1:]).bool()]
    alone = []
    for is_answer, answer in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
        if is_answer:
            alone.append(losses(model, [tokenizer.bos_token_id, *(token for token, _ in answer)]))
    perplexity_given = math.exp(given.mean())
    return perplexity_given, perplexity_given / math.exp(torch.cat(alone).mean()), len(given)


@pytest.mark.parametrize(("max_length", "max_batch_tokens"), [(None, None), (190, 400)])
def test_every_row_is_as_by_itself(work, plain, max_length, max_batch_tokens):
    context = pass_context("perplexity", work, ROWS, max_length=max_length, max_batch_tokens=max_batch_tokens)
    table, result = carry_out(perplexity, context)
    expected = [reference(plain, row["messages"], max_length) for row in ROWS]
    assert list(table) == ["id", "perplexity", "ifd", "tokens", "reason"]
    assert list(table["id"]) == [row["id"] for row in ROWS] and set(table["reason"]) == {None}
    np.testing.assert_allclose(table["perplexity"], [row[0] for row in expected], rtol=1e-4)
    np.testing.assert_allclose(table["ifd"], [row[1] for row in expected], rtol=1e-4)
    assert list(table["tokens"]) == [row[2] for row in expected]
    assert np.ptp(table["ifd"]) > 0.05, "values that hardly differ would show nothing"
    metrics = result.metrics
    assert metrics["mean_ifd"] == pytest.approx(np.mean([row[1] for row in expected]), rel=1e-4)
    assert metrics["mean_perplexity"] == pytest.approx(np.mean([row[0] for row in expected]), rel=1e-4)
    assert metrics["ifd_above_1"] == sum(row[1] > 1 for row in expected)
    assert (metrics["rows"], metrics["measured"], metrics["nulls"]) == (12, 12, {})
    assert (metrics["truncated"] > 0) is (max_length is not None)


def test_with_losses_ifd_is_their_ratio(work, plain):
    context = pass_context("perplexity", work, ROWS)
    context = replace(context, identity={**context.identity, "ifd": "losses"})
    table, result = carry_out(perplexity, context)
    expected = [reference(plain, row["messages"], None) for row in ROWS]
    # The reference has exp(given) and exp(given - alone).
    ratios = [math.log(given) / (math.log(given) - math.log(ifd)) for given, ifd, _ in expected]
    np.testing.assert_allclose(table["ifd"], ratios, rtol=1e-4)
    np.testing.assert_allclose(table["perplexity"], [row[0] for row in expected], rtol=1e-4)
    assert result.metrics["ifd_above_1"] == sum(row[1] > 1 for row in expected)


def test_the_two_ratios_may_order_rows_differently_and_a_loss_of_zero_has_no_ratio():
    # Per token: 2 over 4 and 0.5 over 1.5. By losses 0.5 > 0.33; by perplexities exp(-2) < exp(-1).
    given, alone, tokens = np.array([4.0, 0.5, 0.0, 0.0]), np.array([8.0, 1.5, 0.0, 0.0]), np.array([2, 1, 0, 3])
    by = {
        how: perplexity._ifd(SimpleNamespace(identity={"ifd": how}), given, alone, tokens)
        for how in ("losses", "perplexities")
    }
    np.testing.assert_allclose(by["losses"], [0.5, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(by["perplexities"], [math.exp(-2), math.exp(-1), np.nan, 1.0])
    answered = [{"role": "assistant", "content": "a"}]
    assert perplexity._reason(answered, None, True, np.nan) == "no_loss_alone"
    assert perplexity._reason(answered, None, True, 0.5) is None


def test_rows_without_a_token_of_the_assistant_are_null_with_the_reason(work):
    question = {"role": "user", "content": "How are you today? " * 20}
    rows = [
        {"id": "question", "messages": [question]},
        ROWS[0],
        {"id": "late", "messages": [question, {"role": "assistant", "content": "Fine."}]},
    ]
    # Of the first row of ROWS the answer begins within 150 tokens, after the long question it does not.
    table, result = carry_out(perplexity, pass_context("perplexity", work, rows, max_length=150))
    assert list(table["reason"]) == ["no_answer", None, "answer_beyond_max_length"]
    assert [value is None for value in table["perplexity"]] == [True, False, True]
    assert [value is None for value in table["ifd"]] == [True, False, True]
    assert (table["tokens"][0], table["tokens"][2]) == (0, 0) and table["tokens"][1] > 0
    assert result.metrics["nulls"] == {"no_answer": 1, "answer_beyond_max_length": 1}
    assert (result.rows_in, result.rows_out, result.metrics["measured"]) == (3, 3, 1)
    assert datasets.load_from_disk(str(work / "work" / "data")).features["ifd"] == datasets.Value("float64")


def test_a_pool_without_any_token_of_the_assistant_is_refused(work):
    with pytest.raises(
        UserError, match=rf"none of {len(ROWS)} rows is left .*no_answer_within_max_length: .* Raise max_l"
    ):
        carry_out(perplexity, pass_context("perplexity", work, ROWS, max_length=3))


def test_answers_alone_by_hand():
    row = LabelledRow("a", [9, 1, 2, 3, 4, 5, 6], [-100, -100, 2, 3, -100, -100, 6])
    alone = answers_alone(row)
    assert [(answer.input_ids, answer.labels) for answer in alone] == [
        ([9, 2, 3], [-100, 2, 3]),
        ([9, 6], [-100, 6]),
    ]


def test_a_label_on_the_first_token_is_no_answer():
    alone = answers_alone(LabelledRow("a", [9, 1, 2], [9, 1, -100]))
    assert [(answer.input_ids, answer.labels) for answer in alone] == [([9, 1], [-100, 1])]
    assert answers_alone(LabelledRow("a", [9], [9])) == []


def select_context(folder, pool, measured, method):
    """A selection of two rows by what was measured."""
    folder.mkdir()
    for name, table in {"pool": pool, "perplexity": measured}.items():
        datasets.Dataset.from_list(table).save_to_disk(str(folder / name / "data"))
    config = {"method": method, "budget": 2, "column": method, **({"order": "highest"} if method != "ifd" else {})}
    parents = {name: folder / name for name in ("pool", "perplexity")}
    settings = {"allow_fewer": False}
    return StageContext("select", "select", config, settings, parents, folder / "work", 0, 1, Progress(None))


@pytest.mark.parametrize(("method", "kept"), [("perplexity", ["c", "b"]), ("ifd", ["b", "d"])])
def test_a_selection_reads_what_was_measured_by_id(tmp_path, method, kept):
    values = {"b": (5.0, 0.9), "a": (None, None), "d": (2.0, 0.8), "c": (9.0, 0.3)}
    measured = [{"id": name, "perplexity": both[0], "ifd": both[1]} for name, both in values.items()]
    pool = [{"id": name, "messages": [{"role": "user", "content": name}]} for name in "abcd"]
    context = select_context(tmp_path / "made", pool, measured, method)
    result = select.run(context)
    assert list(datasets.load_from_disk(str(context.data_dir))["id"]) == kept
    assert (result.rows_in, sum(result.drops.values())) == (4, 2)


def test_a_pool_with_a_column_of_that_name_is_refused(tmp_path):
    pool = [{"id": "a", "ifd": 0.5, "messages": [{"role": "user", "content": "a"}]}]
    context = select_context(tmp_path / "made", pool, [{"id": "a", "perplexity": 2.0, "ifd": 0.7}], "ifd")
    with pytest.raises(UserError, match="the pool has a column 'ifd', and perplexity: measures one"):
        select.run(context)

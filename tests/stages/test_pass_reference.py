"""Scores, embeddings and losses of the passes against plain transformers: one row at a time, all logits, float32."""

import math

import numpy as np
import pytest
import torch
from pass_stages import ARCHITECTURES, carry_out, conversations, make_model, pass_context

from deita_train.stages.inference import embed, evaluate, score

ROWS = conversations(14)
WEIGHTS = torch.arange(1.0, 7.0)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(folder / "model", request.param)
    return folder


def outputs(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)


def reference_score(plain, question, answer):
    model, tokenizer = plain
    prompt = (
        "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. "
        f"\n #Question#:\n{question}\n#Response#:\n{answer} \n##Quality: "
    )
    logits = outputs(model, tokenizer(prompt)["input_ids"]).logits[0, -1]
    six = logits[[tokenizer(prompt + digit)["input_ids"][-1] for digit in "123456"]]
    return float((six.softmax(0) * WEIGHTS).sum())


def reference_scores(plain, messages):
    pairs = zip(messages[0::2], messages[1::2], strict=True)
    return [reference_score(plain, question["content"], answer["content"]) for question, answer in pairs]


@pytest.mark.parametrize("max_batch_tokens", [None, 500])
def test_scores(work, plain, max_batch_tokens):
    context = pass_context("score", work, ROWS, max_batch_tokens=max_batch_tokens)
    table, result = carry_out(score, context)
    assert result.metrics["scored"] == 21
    expected = [reference_scores(plain, row["messages"]) for row in ROWS]
    assert [len(scores) for scores in table["quality_scores"]] == [1, 2] * 7
    np.testing.assert_allclose(np.concatenate(table["quality_scores"]), np.concatenate(expected), rtol=0, atol=1e-5)
    assert np.ptp(np.concatenate(expected)) > 0.3, "scores that hardly differ would show nothing"


def test_embeddings(work, plain):
    model, tokenizer = plain
    table, result = carry_out(embed, pass_context("embed", work, ROWS, max_batch_tokens=700))
    assert result.metrics["truncated"] == 0
    for row, embedding in zip(ROWS, np.array(table["embedding"]), strict=True):
        ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        expected = outputs(model, ids).hidden_states[-1][0, -1].numpy()
        assert np.linalg.norm(embedding - expected) <= 1e-4 * np.linalg.norm(expected)


def test_perplexity(work, plain):
    model, tokenizer = plain
    table, result = carry_out(evaluate, pass_context("evaluate", work, ROWS, max_length=2048, max_batch_tokens=700))
    losses, counts = [], []
    for row in ROWS:
        encoded = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        ids, assistant = torch.tensor(encoded["input_ids"]), torch.tensor(encoded["assistant_masks"]).bool()
        log_probs = outputs(model, ids.tolist()).logits[0, :-1].log_softmax(-1)
        wanted = -log_probs[torch.arange(len(ids) - 1), ids[1:]]
        losses.append(float(wanted[assistant[1:]].sum()))
        counts.append(int(assistant[1:].sum()))
    np.testing.assert_allclose(table["loss"], losses, rtol=1e-4)
    assert list(table["tokens"]) == counts
    perplexity = math.exp(sum(losses) / sum(counts))
    assert result.metrics["heldout"]["perplexity"] == pytest.approx(perplexity, rel=1e-4)


def test_the_size_of_the_batches_and_the_order_of_the_rows_do_not_matter(made, tmp_path):
    ways = {"whole": (ROWS, None), "single": (ROWS, 1), "reversed": (ROWS[::-1], 900)}
    found = {}
    for name, (rows, max_batch_tokens) in ways.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").symlink_to(made / "model")
        context = pass_context("score", tmp_path / name, rows, max_batch_tokens=max_batch_tokens)
        table, _ = carry_out(score, context)
        found[name] = dict(zip(table["id"], table["quality_scores"], strict=True))
    for name in ("single", "reversed"):
        for row_id, scores in found["whole"].items():
            np.testing.assert_allclose(found[name][row_id], scores, rtol=0, atol=1e-5)

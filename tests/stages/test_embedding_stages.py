"""Pooling and storage of embeddings."""

import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from pass_stages import carry_out, conversations, make_model, pass_context
from transformers import AutoModel, AutoTokenizer

from deita_train.errors import UserError
from deita_train.inference.row_file import RowFile
from deita_train.stages.inference import embed

ROWS = conversations(9)


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(folder / "model", request.param)
    return folder


def context_of(kind, work, rows=ROWS, max_batch_tokens=400, max_length=None, **config):
    context = pass_context(kind, work, rows, max_batch_tokens=max_batch_tokens, max_length=max_length)
    return replace(context, identity={**context.identity, **config})


def hidden_states(made, row):
    """Last layer, float64 [T, D], of one row without padding."""
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    with torch.no_grad():
        return AutoModel.from_pretrained(made / "model")(input_ids=torch.tensor([ids])).last_hidden_state[0].double()


def weighted_by_position(hidden):
    weights = torch.arange(1, len(hidden) + 1).double()
    return (hidden * weights[:, None]).sum(0) / weights.sum()


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [("mean", lambda h: h.mean(0)), ("last_token", lambda h: h[-1]), ("weighted_mean", weighted_by_position)],
)
def test_pooling_is_as_one_row_at_a_time(made, work, pooling, by_hand):
    table, result = carry_out(embed, context_of("embed", work, pooling=pooling))
    expected = np.stack([by_hand(hidden_states(made, row)).numpy() for row in ROWS])
    np.testing.assert_allclose(np.array(table["embedding"]), expected, rtol=1e-4, atol=1e-5)
    assert result.metrics["dimensions"] == 32


def test_the_models_own_template_needs_no_marks(made, tmp_path):
    own = "{{ '<|turn|>' + messages[0]['content'] + eos_token }}"
    shutil.copytree(made / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(own)
    rows = [{"id": "a", "messages": [{"role": "user", "content": "Hi"}]}]
    context = context_of("embed", tmp_path, rows, chat_template=own)
    embed.prepare(context)
    prepared = [ids.tolist() for ids in RowFile(context.prepared_dir / "rows.arrow").each()]
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    assert prepared == [tokenizer("<|turn|>Hi</s>", add_special_tokens=False)["input_ids"]]


def test_float16_is_the_nearest_number(work):
    exact, _ = carry_out(embed, context_of("embed", work))
    (work / "half").mkdir()
    (work / "half" / "model").symlink_to(work / "model")
    half, _ = carry_out(embed, context_of("embed", work / "half", storage="float16"))
    stored = datasets.load_from_disk(str(work / "half" / "work" / "data"))
    assert stored.features["embedding"] == datasets.List(datasets.Value("float16"), length=32)
    wanted = np.array(exact["embedding"], np.float32).astype(np.float16)
    np.testing.assert_array_equal(np.array(half["embedding"], np.float16), wanted)


def test_a_number_that_float16_cannot_hold_is_refused_by_row(work, monkeypatch):
    def large(trunk, batch):
        return torch.full((len(batch.last), 4), 65_520.0)

    monkeypatch.setitem(embed._POOLINGS, "last_token", large)
    context = context_of("embed", work, storage="float16", max_batch_tokens=1)
    with pytest.raises(UserError, match=r"row 'row-\d+' has 65,520 in its embedding.*embedding.storage: float32"):
        carry_out(embed, context)
    carry_out(embed, context_of("embed", work, max_batch_tokens=1))

"""Pooling, storage and sentence-transformers, the last with a stand-in for the library."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from pass_stages import carry_out, conversations, make_model, pass_context
from transformers import AutoModel, AutoTokenizer

from deita_train.errors import UserError
from deita_train.inference.batches import read_plan
from deita_train.stages import embed, sentence_embed

ROWS = conversations(9)


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(folder / "model", request.param)
    return folder


def context_of(kind, work, rows=ROWS, max_batch_tokens=400, max_length=None, **config):
    context = pass_context(kind, work, rows, max_batch_tokens=max_batch_tokens, max_length=max_length)
    return replace(context, config={**context.config, **config})


def hidden_states(made, row):
    """Last layer, float64 [T, D], of one row without padding."""
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    with torch.no_grad():
        return AutoModel.from_pretrained(made / "model")(input_ids=torch.tensor([ids])).last_hidden_state[0].double()


@pytest.mark.parametrize(("pooling", "by_hand"), [("mean", lambda h: h.mean(0)), ("last_token", lambda h: h[-1])])
def test_pooling_is_as_one_row_at_a_time(made, work, pooling, by_hand):
    table, result = carry_out(embed, context_of("embed", work, pooling=pooling))
    expected = np.stack([by_hand(hidden_states(made, row)).numpy() for row in ROWS])
    np.testing.assert_allclose(np.array(table["embedding"]), expected, rtol=1e-4, atol=1e-5)
    assert result.metrics["dimensions"] == 32


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


class SentenceTransformer:
    """What the stage uses of the library's class: a text's vector is its number of characters and of its tokens."""

    def __init__(self, path, device):
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.max_seq_length = 50
        self.moved = []
        self.batches = []
        MADE.append(SimpleNamespace(encoder=self, path=path, device=device))

    def to(self, device, dtype):
        self.moved.append((str(device), dtype))

    def eval(self):
        return self

    def encode(self, texts, batch_size, convert_to_tensor, show_progress_bar):
        assert batch_size == len(texts) and convert_to_tensor and not show_progress_bar
        self.batches.append(len(texts))
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_seq_length)["input_ids"]
        return torch.tensor([[len(text), len(ids)] for text, ids in zip(texts, tokens, strict=True)]).bfloat16()


MADE = []


@pytest.fixture
def library(monkeypatch):
    MADE.clear()
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return MADE


@pytest.mark.parametrize(("stated", "limit"), [(None, 50), (30, 30)])
def test_a_sentence_transformer_gets_the_contents_of_the_messages(made, work, library, stated, limit):
    context = context_of("sentence_embed", work, max_length=stated, max_batch_tokens=120)
    table, result = carry_out(sentence_embed, context)
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    texts = ["\n\n".join(message["content"] for message in row["messages"]) for row in ROWS]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    expected = torch.tensor([[len(text), min(n, limit)] for text, n in zip(texts, lengths, strict=True)]).bfloat16()
    assert list(table["id"]) == [row["id"] for row in ROWS]
    assert table["embedding"][:] == expected.float().tolist()
    assert (result.metrics["max_length"], result.metrics["mfu"]) == (limit, None)
    assert result.metrics["truncated"] == sum(n > limit for n in lengths) > 0
    preparing, running = library
    assert (preparing.device, running.encoder.moved) == ("cpu", [("cpu", torch.float32)])
    plan = read_plan(context.prepared_dir / "batches.json")
    assert plan.lengths == [min(n, limit) for n in lengths]
    assert sorted(running.encoder.batches) == sorted(map(len, plan.batches)) and len(plan.batches) > 2


def test_what_a_published_artefact_holds_is_not_embedded_again(work, library):
    carry_out(sentence_embed, context_of("sentence_embed", work))
    again = replace(context_of("sentence_embed", work), work_dir=work / "again", siblings=(work / "work",))
    again.prepared_dir.mkdir(parents=True)
    table, result = carry_out(sentence_embed, again)
    assert (result.metrics["rows_reused"], library[-1].encoder.batches) == (9, [])
    first = datasets.load_from_disk(str(work / "work" / "data"))
    assert table["embedding"][:] == first["embedding"][:]


def test_a_gpu_without_a_stated_batch_takes_65536_tokens(work, library):
    context = context_of("sentence_embed", work, max_batch_tokens=None)
    context.settings["launch"] = {**context.settings["launch"], "use_cpu": False}
    sentence_embed.prepare(context)
    assert read_plan(context.prepared_dir / "batches.json").max_batch_tokens == 65_536


def test_without_the_library_it_says_how_to_install_it(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"needs the library .*`pip install sentence-transformers`"):
        carry_out(sentence_embed, context_of("sentence_embed", work))

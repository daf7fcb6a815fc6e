"""The stage `sentence_embed` with the library itself, against its model's layers called one row at a time."""

import json
import shutil
import sys
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from pass_stages import TEMPLATE, carry_out, conversations, pass_context
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from deita_train.errors import UserError
from deita_train.inference.batches import read_plan
from deita_train.stages.inference import batched_pass, sentence_embed
from deita_train.training.miniature import train_tokenizer

ROWS = conversations(15)
MAX_LENGTH = 40


@pytest.fixture(scope="module", params=["without a chat template", "with one"])
def work(request, tmp_path_factory):
    """A folder with a miniature as the library saves one: a BERT, the mean of its states, length one."""
    folder = tmp_path_factory.mktemp("work")
    texts = [message["content"] for row in ROWS for message in row["messages"]]
    tokenizer = train_tokenizer(texts * 3, 400, TEMPLATE, folder / "bert")
    if request.param == "without a chat template":
        tokenizer.chat_template = None
        (folder / "bert" / "chat_template.jinja").unlink()
        tokenizer.save_pretrained(folder / "bert")
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.3, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=MAX_LENGTH)
    modules = [transformer, Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder


def by_hand(folder, messages, max_length):
    """The mean of the last states of one text without padding, as a unit vector."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    text = "\n\n".join(message["content"] for message in messages)
    ids = tokenizer(text)["input_ids"]
    if tokenizer.chat_template is not None:  # the library gives such a model its text as a user's message
        ids = tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=True)["input_ids"]
    with torch.no_grad():
        mean = model(input_ids=torch.tensor([ids[:max_length]])).last_hidden_state[0].mean(dim=0)
    return (mean / mean.norm()).numpy(), len(ids)


@pytest.mark.parametrize(("stated", "limit"), [(None, MAX_LENGTH), (20, 20)])
def test_embeddings_are_those_of_the_library_row_by_row(work, stated, limit):
    context = pass_context("sentence_embed", work, ROWS, max_length=stated, max_batch_tokens=150)
    table, result = carry_out(sentence_embed, context)
    assert list(table["id"]) == [row["id"] for row in ROWS]
    lengths = []
    for row, vector in zip(ROWS, table["embedding"][:], strict=True):
        expected, length = by_hand(work / "bert", row["messages"], limit)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        lengths.append(length)
    assert (result.metrics["dimensions"], result.metrics["max_length"]) == (32, limit)
    assert result.metrics["truncated"] == sum(length > limit for length in lengths) > 0
    assert read_plan(context.prepared_dir / "batches.npz").lengths.tolist() == [
        min(length, limit) for length in lengths
    ]


def test_what_a_published_artefact_holds_is_not_embedded_again(work):
    first = pass_context("sentence_embed", work, ROWS, max_batch_tokens=150)
    first = replace(first, work_dir=work / "first")
    first.prepared_dir.mkdir(parents=True)
    before, _ = carry_out(sentence_embed, first)
    again = replace(first, work_dir=work / "again", reusable=(work / "first",))
    again.prepared_dir.mkdir(parents=True)
    table, result = carry_out(sentence_embed, again)
    assert (result.metrics["rows_reused"], result.metrics["tokens"]) == (15, 0)
    assert table["embedding"][:] == before["embedding"][:]


def test_a_gpu_without_a_stated_batch_takes_65536_tokens(work):
    context = pass_context("sentence_embed", work, ROWS)
    context.runtime["launch"] = {**context.runtime["launch"], "use_cpu": False}
    sentence_embed.prepare(context)
    assert read_plan(context.prepared_dir / "batches.npz").max_batch_tokens == 65_536


def test_the_numbers_are_of_the_dtype_that_is_asked_for(work):
    context = pass_context("sentence_embed", work, ROWS, dtype="bfloat16", max_batch_tokens=150)
    carry_out(sentence_embed, context)
    vectors = np.array(datasets.load_from_disk(str(context.data_dir))["embedding"][:], np.float32)
    as_bfloat16 = torch.from_numpy(vectors).bfloat16().float().numpy()
    np.testing.assert_array_equal(vectors, as_bfloat16)


def test_hours_in_bfloat16_on_a_cpu_are_refused(work, monkeypatch):
    refused = []
    monkeypatch.setattr(batched_pass, "refuse_slow_bfloat16", lambda flops, _: refused.append(flops))
    context = pass_context("sentence_embed", work, ROWS, dtype="bfloat16", max_batch_tokens=150)
    carry_out(sentence_embed, context)
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    weights = load_file(work / "model" / "model.safetensors")
    products = sum(weight.numel() for name, weight in weights.items() if not any(table in name for table in tables))
    tokens = sum(read_plan(context.prepared_dir / "batches.npz").lengths)
    assert refused == [2 * products * tokens]


def test_without_the_library_it_says_how_to_install_it(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"needs the library .*`pip install sentence-transformers`"):
        carry_out(sentence_embed, pass_context("sentence_embed", work, ROWS))


def with_end(work, tmp_path):
    """The model of `work`, whose tokenizer's settings state an end of sequence that its tokenizer.json does not add."""
    copy = tmp_path / "with end"
    shutil.copytree(work / "model", copy / "model")
    (config,) = (copy / "model").rglob("tokenizer_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "add_eos_token": True}))
    return copy


def test_a_stated_end_of_sequence_is_embedded(work, tmp_path):
    copy = with_end(work, tmp_path)
    context = pass_context("sentence_embed", copy, ROWS[:6])
    tokenizer = AutoTokenizer.from_pretrained(work / "bert")
    if tokenizer.chat_template is not None:
        with pytest.raises(UserError, match=r"states add_bos_token or add_eos_token, and the chat template .* leaves"):
            carry_out(sentence_embed, context)
        return
    table, _ = carry_out(sentence_embed, context)
    model = AutoModel.from_pretrained(work / "bert").eval()
    for row, found in zip(ROWS, table["embedding"], strict=False):
        ids = tokenizer("\n\n".join(message["content"] for message in row["messages"]))["input_ids"]
        ids = [*ids[: MAX_LENGTH - 1], tokenizer.eos_token_id]
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(found, (mean / mean.norm()).numpy(), rtol=0, atol=1e-5)

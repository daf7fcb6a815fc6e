import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from deita_train.inference import forward
from deita_train.inference.forward import (
    check_plain_head,
    last_hidden_states,
    last_logits,
    load_model,
    pad_batch,
    summed_loss,
)

CPU = torch.device("cpu")
VOCABULARY = 61
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    # Wide enough that logits differ by several units.
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 4}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen2-tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
}


def build(config_class, model_class, options):
    torch.manual_seed(5)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    return model_class(config_class(**TINY, **ends, **options)).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return build(*ARCHITECTURES[request.param])


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    # Id 0 is both the padding and a real token; the last row ends in it.
    return [random.integers(0, VOCABULARY, size).tolist() for size in (9, 1, 17, 5)] + [[7, 0, 0]]


def alone(model, row):
    """Last hidden state [D] and logits [T, V] of one row without padding, by the model's own forward."""
    with torch.no_grad():
        output = model(input_ids=torch.tensor([row]), output_hidden_states=True, use_cache=False)
    return output.hidden_states[-1][0, -1], output.logits[0]


def test_pad_batch_by_hand():
    batch = pad_batch([[4, 5, 6], [7], [8, 9]], CPU)
    assert batch.input_ids.tolist() == [[4, 5, 6], [7, 0, 0], [8, 9, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.last.tolist() == [2, 0, 1]
    assert {t.dtype for t in (batch.input_ids, batch.attention_mask, batch.last)} == {torch.int64}


def test_an_empty_row_is_refused():
    with pytest.raises(AssertionError, match="empty row"):
        pad_batch([[1], []], CPU)


def test_last_hidden_states_and_logits_against_one_row_at_a_time(model, rows):
    batch = pad_batch(rows, CPU)
    hidden, logits = last_hidden_states(model.base_model, batch), last_logits(model, batch)
    assert hidden.shape == (5, 32)
    assert (logits.shape, logits.dtype) == ((5, VOCABULARY), torch.float32)
    for index, row in enumerate(rows):
        own_hidden, own_logits = alone(model, row)
        torch.testing.assert_close(hidden[index], own_hidden, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits[index], own_logits[-1], atol=1e-5, rtol=1e-5)
    assert logits.std() > 0.5


def test_padding_and_order_do_not_matter(model, rows):
    straight = last_hidden_states(model.base_model, pad_batch(rows, CPU))
    order = [3, 0, 4, 2, 1]
    mixed = last_hidden_states(model.base_model, pad_batch([rows[i] for i in order], CPU))
    torch.testing.assert_close(mixed, straight[order], atol=1e-5, rtol=1e-5)
    long = [5] * 40
    padded_more = last_hidden_states(model.base_model, pad_batch([*rows, long], CPU))
    torch.testing.assert_close(padded_more[:5], straight, atol=1e-5, rtol=1e-5)


def labels_for(rows, width):
    """Every second token counts, the first of the row among them though nothing predicts it; row 1 has no label."""
    labels = torch.full((len(rows), width), -100)
    for index, row in enumerate(rows):
        if index != 1:
            labels[index, 0 : len(row) : 2] = torch.tensor(row)[0::2]
    return labels


@pytest.mark.parametrize("chunk", [1024, 3])
def test_summed_loss_against_cross_entropy_per_row(model, rows, chunk, monkeypatch):
    monkeypatch.setattr(forward, "_HEAD_CHUNK_TOKENS", chunk)
    batch = pad_batch(rows, CPU)
    labels = labels_for(rows, batch.input_ids.shape[1])
    sums, counts = summed_loss(model, batch, labels)
    assert (sums.dtype, counts.dtype) == (np.float64, np.int64)
    # Places 2, 4, ... of rows of 9, 1, 17, 5 and 3 tokens.
    assert counts.tolist() == [4, 0, 8, 2, 1]
    for index, row in enumerate(rows):
        _, logits = alone(model, row)
        own = labels[index, 1 : len(row)]
        wanted = torch.nn.functional.cross_entropy(logits[:-1], own, reduction="sum").item() if len(row) > 1 else 0.0
        assert sums[index] == pytest.approx(wanted, rel=1e-4)
    order = [2, 4, 1, 0, 3]
    mixed_batch = pad_batch([rows[i] for i in order], CPU)
    mixed, _ = summed_loss(model, mixed_batch, labels[order])
    assert mixed == pytest.approx(sums[order], rel=1e-4)


def test_summed_loss_without_any_label(model, rows):
    batch = pad_batch(rows, CPU)
    sums, counts = summed_loss(model, batch, torch.full_like(batch.input_ids, -100))
    assert sums.tolist() == [0.0] * 5
    assert counts.tolist() == [0] * 5


def test_plain_heads_pass(model, rows):
    check_plain_head(model, rows[0], CPU)


def test_a_capped_head_is_refused(rows):
    capped = build(Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": 1.0})
    with pytest.raises(AssertionError, match="Gemma2ForCausalLM does something to its logits"):
        check_plain_head(capped, rows[0], CPU)
    check_plain_head(build(Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": None}), rows[0], CPU)


def test_a_scaled_head_is_refused(rows):
    scaled = build(LlamaConfig, LlamaForCausalLM, {})
    own_forward = scaled.forward

    def forward_with_scale(**options):
        output = own_forward(**options)
        output.logits = output.logits * 1.01
        return output

    scaled.forward = forward_with_scale
    with pytest.raises(AssertionError, match="does something to its logits"):
        check_plain_head(scaled, rows[0], CPU)


def test_load_model_with_and_without_its_head(tmp_path, rows):
    made = build(*ARCHITECTURES["llama"])
    made.save_pretrained(tmp_path)
    whole = load_model(str(tmp_path), "float32", CPU, head=True)
    trunk = load_model(str(tmp_path), "float32", CPU, head=False)
    assert not whole.training
    assert not trunk.training
    assert trunk.get_output_embeddings() is None
    batch = pad_batch(rows, CPU)
    expected = last_hidden_states(made.base_model, batch)
    for loaded in (whole.base_model, trunk):
        torch.testing.assert_close(last_hidden_states(loaded, batch), expected, atol=1e-6, rtol=1e-6)
    assert load_model(str(tmp_path), "bfloat16", CPU, head=True).dtype == torch.bfloat16

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from deita_train.errors import UserError
from deita_train.inference import forward
from deita_train.inference.forward import (
    PaddedBatch,
    check_logits,
    head_logits,
    last_hidden_states,
    last_logits,
    load_model,
    mean_hidden_states,
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
    "gemma2-capped": (Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": 1.5, "sliding_window": 4}),
    "granite-divided": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 0.25}),
    "cohere2-scaled": (Cohere2Config, Cohere2ForCausalLM, {"logit_scale": 2.5}),
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


def test_padding_on_the_left_gives_the_same(model, rows):
    """Positions count from the padding on, which these architectures do not notice: they see distances alone."""
    right = pad_batch(rows, CPU)
    ids, mask = torch.zeros_like(right.input_ids), torch.zeros_like(right.attention_mask)
    for index, row in enumerate(rows):
        ids[index, -len(row) :] = torch.tensor(row)
        mask[index, -len(row) :] = 1
    left = PaddedBatch(ids, mask, torch.full_like(right.last, ids.shape[1] - 1))
    expected = last_hidden_states(model.base_model, right)
    torch.testing.assert_close(last_hidden_states(model.base_model, left), expected, atol=1e-5, rtol=1e-5)


def masks_seen(trunk, batch):
    """The attention masks that the trunk is called with."""
    seen = []
    hook = trunk.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    states = last_hidden_states(trunk, batch)
    hook.remove()
    return seen, states


def test_a_causal_model_needs_no_mask_for_padding_on_the_right(model, rows):
    batch = pad_batch(rows, CPU)
    seen, without = masks_seen(model.base_model, batch)
    assert seen == [None]
    seen, masked = masks_seen(model.base_model, replace(batch, on_the_right=False))
    assert seen[0] is batch.attention_mask
    torch.testing.assert_close(without, masked, atol=1e-5, rtol=1e-5)


def test_a_model_that_looks_ahead_gets_the_mask(rows):
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    trunk = BertModel(config, add_pooling_layer=False).eval()
    batch = pad_batch(rows, CPU)
    hidden, mean = last_hidden_states(trunk, batch), mean_hidden_states(trunk, batch)
    for index, row in enumerate(rows):
        with torch.no_grad():
            own = trunk(input_ids=torch.tensor([row])).last_hidden_state[0]
        torch.testing.assert_close(hidden[index], own[-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mean[index], own.mean(dim=0), atol=1e-5, rtol=1e-5)


DIGIT_IDS = [7, 2, 60, 0, 9, 4]


def test_a_few_tokens_have_the_logits_that_they_have_in_the_whole_head(model, rows):
    hidden = last_hidden_states(model.base_model, pad_batch(rows, CPU))
    whole, few = head_logits(model, hidden), head_logits(model, hidden, DIGIT_IDS)
    assert (few.shape, few.dtype) == ((5, 6), torch.float32)
    torch.testing.assert_close(few, whole[:, DIGIT_IDS], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last_logits(model, pad_batch(rows, CPU), DIGIT_IDS), few)


def test_of_the_head_only_the_rows_of_the_few_tokens_are_read(rows):
    made = build(*ARCHITECTURES["llama"])
    hidden = last_hidden_states(made.base_model, pad_batch(rows, CPU))
    expected = head_logits(made, hidden)[:, DIGIT_IDS]
    others = [index for index in range(VOCABULARY) if index not in DIGIT_IDS]
    with torch.no_grad():
        made.lm_head.weight[others] = torch.nan
    torch.testing.assert_close(head_logits(made, hidden, DIGIT_IDS), expected, atol=1e-5, rtol=1e-5)


def test_a_head_with_a_bias(rows):
    made = build(*ARCHITECTURES["llama"])
    made.lm_head.bias = torch.nn.Parameter(torch.linspace(-3, 3, VOCABULARY))
    hidden = last_hidden_states(made.base_model, pad_batch(rows, CPU))
    own = torch.stack([alone(made, row)[1][-1] for row in rows])
    torch.testing.assert_close(head_logits(made, hidden, DIGIT_IDS), own[:, DIGIT_IDS], atol=1e-5, rtol=1e-5)
    check_logits(made, rows[0], CPU)


def test_a_head_that_is_more_than_one_matrix_is_read_whole(rows):
    """As an adapter in the head makes it: its weight is the base's, and the adapter's part comes on top."""
    made = build(*ARCHITECTURES["llama"])

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.weight, self.bias = base, base.weight, None

        def forward(self, hidden):
            return self.base(hidden) + hidden.sum(-1, keepdim=True)

    made.lm_head = Adapted(made.lm_head)
    hidden = last_hidden_states(made.base_model, pad_batch(rows, CPU))
    own = torch.stack([alone(made, row)[1][-1] for row in rows])
    torch.testing.assert_close(head_logits(made, hidden, DIGIT_IDS), own[:, DIGIT_IDS], atol=1e-5, rtol=1e-5)
    check_logits(made, rows[0], CPU)


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
    check_logits(model, rows[0], CPU)


def of_trunk(model):
    """The same model with its logits changed by 5%, which no configuration says."""
    own_forward = model.forward

    def forward_with_scale(**options):
        output = own_forward(**options)
        output.logits = output.logits * 1.05
        return output

    model.forward = forward_with_scale
    return model


def test_logits_that_no_configuration_explains_are_refused(rows):
    changed = of_trunk(build(LlamaConfig, LlamaForCausalLM, {}))
    with pytest.raises(UserError, match="LlamaForCausalLM does something to its logits after the output head"):
        check_logits(changed, rows[0], CPU)


def test_half_precision_passes_and_its_changed_logits_are_refused(model, rows):
    """In bfloat16 what the two ways to compute round differently is far below a factor of 1.05."""
    half = model.__class__(model.config).to(torch.bfloat16).eval()
    half.load_state_dict(model.state_dict())
    check_logits(half, rows[2], CPU)
    with pytest.raises(UserError, match="does something to its logits"):
        check_logits(of_trunk(half), rows[2], CPU)


def test_a_model_that_keeps_its_hidden_states_is_refused(rows):
    made = build(LlamaConfig, LlamaForCausalLM, {})
    made.base_model_prefix = "language_model"  # as Llama 4's, whose trunk has another name
    with pytest.raises(UserError, match="LlamaForCausalLM does not give its hidden states"):
        check_logits(made, rows[0], CPU)


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


def test_mean_over_attended_tokens_by_hand():
    """Row 0 is padded on the right with nan, row 1 on the left; its first hidden state is what padding leaves there."""
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [math.nan, math.inf]], [[9.0, 9.0], [0.5, -1.0], [1.5, 2.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    seen = []

    def trunk(input_ids, attention_mask, use_cache):
        seen.append((input_ids, attention_mask))
        return SimpleNamespace(last_hidden_state=hidden.bfloat16())

    batch = PaddedBatch(torch.tensor([[5, 6, 0], [0, 7, 8]]), mask, torch.tensor([1, 2]))
    mean = mean_hidden_states(trunk, batch)
    assert mean.dtype == torch.float32 and mean.tolist() == [[2.0, 4.0], [1.0, 0.5]]
    assert last_hidden_states(trunk, batch).tolist() == [[3.0, 6.0], [1.5, 2.0]]
    assert seen[0][1] is mask


def test_the_mean_is_taken_in_float32():
    """In bfloat16 256 + 1 is 256, and so on: the sum would stay there."""
    hidden = torch.cat([torch.full((1, 1, 1), 256.0), torch.ones(1, 256, 1)], dim=1).bfloat16()
    ids = torch.zeros(1, 257, dtype=torch.long)
    batch = PaddedBatch(ids, torch.ones_like(ids), torch.tensor([256]))
    mean = mean_hidden_states(lambda **inputs: SimpleNamespace(last_hidden_state=hidden), batch)
    assert mean.item() == pytest.approx(512 / 257)


def test_mean_hidden_states_against_one_row_at_a_time(model, rows):
    found = mean_hidden_states(model.base_model, pad_batch(rows, torch.device("cpu")))
    for row, mean in zip(rows, found, strict=True):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([row]), output_hidden_states=True, use_cache=False).hidden_states[-1]
        torch.testing.assert_close(mean, hidden[0].double().mean(dim=0).float(), rtol=1e-4, atol=1e-5)

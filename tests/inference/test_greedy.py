import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from deita_train.inference.greedy import greedy_answers

SHAPE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
# Two of one length, and one that is longer than the sliding windows.
PROMPTS = [[5, 6, 7], [9, 8, 7], [11, 12, 13, 14, 15, 16, 17], [3]]
STOPS = [2, 31]


def build(name):
    torch.manual_seed(2)
    more = {"sliding_window": 4} if name in ("gemma2", "cohere2", "mistral") else {}
    config = AutoConfig.for_model(name, **{**SHAPE, **more})
    return AutoModelForCausalLM.from_config(config).eval()


def by_hand(model, prompt, count, stops=STOPS):
    """The likeliest token again and again, each time from the whole row and without a cache."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere2", "mistral", "gpt2", "mamba"])
def test_the_likeliest_tokens_up_to_a_stop(name):
    model = build(name)
    expected = [by_hand(model, prompt, 20) for prompt in PROMPTS]
    assert greedy_answers(model, PROMPTS, 20, stop_ids=STOPS) == expected
    assert all(len(answer) == 20 or answer[-1] in STOPS for answer in expected)


def test_progress_counts_the_answers():
    told = []
    greedy_answers(build("llama"), [[5, 6], [7, 8], [9, 10, 11]], 2, stop_ids=[], on_progress=told.append)
    assert told == [2, 3]


def test_an_answer_ends_at_each_of_the_stop_tokens_and_keeps_it():
    model = build("llama")
    free = by_hand(model, PROMPTS[0], 12, stops=())
    assert len(free) == 12 and len(set(free)) > 3
    for stop in set(free):
        end = free.index(stop) + 1
        assert greedy_answers(model, PROMPTS[:1], 12, stop_ids=[stop]) == [free[:end]]
    assert greedy_answers(model, PROMPTS[:1], 12, stop_ids=[]) == [free]


def test_the_models_own_penalties_have_no_effect():
    model = build("llama")
    expected = greedy_answers(model, PROMPTS, 12, stop_ids=STOPS)
    own = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=3.0, eos_token_id=7)
    model.generation_config = own
    assert greedy_answers(model, PROMPTS, 12, stop_ids=STOPS) == expected
    assert model.generation_config is own


def test_a_model_with_learned_positions_writes_no_further_than_it_can_read():
    model = build("gpt2")
    prompt = [3 + place % 40 for place in range(60)]
    (answer,) = greedy_answers(model, [prompt], 20, stop_ids=[], max_length=64)
    assert len(answer) == 4
    assert greedy_answers(model, [[5] * 64], 20, stop_ids=[], max_length=64) == [[]]

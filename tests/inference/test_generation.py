from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_families import FAMILIES, make_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from deita_train.errors import UserError
from deita_train.inference import generation
from deita_train.inference.generation import Generated, Prompt, context_length, generate, stop_ids

VOCABULARY = 61
STOP = 2


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request):
    """Random weights wide enough that logits differ by units; gpt2 has learned positions."""
    torch.manual_seed(7)
    ends = {"bos_token_id": 1, "eos_token_id": STOP, "pad_token_id": None}
    if request.param == "gpt2":
        config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends)
        config.initializer_range = 0.3
        return GPT2LMHeadModel(config).eval()
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, **ends,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(4)
    return [random.integers(3, VOCABULARY, size).tolist() for size in (9, 1, 17, 5, 17, 12, 2, 30)]


def greedy(model, row, limit, stops):
    """One row alone, each token from a forward pass over all before it."""
    ids = list(row)
    for _ in range(limit):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in stops:
            return Generated(ids[len(row) :], ended=True)
        ids.append(token)
    return Generated(ids[len(row) :], ended=False)


def generated(model, prompts, stops=(STOP,), max_rows=8):
    """In the order of the prompts."""
    found = dict(pair for batch in generate(model, prompts, stops, max_rows) for pair in batch)
    assert sorted(found) == list(range(len(prompts)))
    return [found[place] for place in range(len(prompts))]


def ends_some(model, rows):
    """Two tokens that end some answers early, at different places, and others not."""
    whole = [greedy(model, row, 12, ()).ids for row in rows]
    for first, second in product({token for ids in whole for token in ids}, repeat=2):
        lengths = [next((at for at, token in enumerate(ids) if token in (first, second)), 12) for ids in whole]
        if 12 in lengths and len(set(lengths)) > 3:
            return first, second
    raise AssertionError("the miniature writes too little of different kinds")


@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_batches_write_what_one_row_alone_writes(model, rows, max_rows):
    stops = ends_some(model, rows)
    expected = [greedy(model, row, 12, stops) for row in rows]
    assert {answer.ended for answer in expected} == {True, False}
    prompts = [Prompt(row, 12) for row in rows]
    assert generated(model, prompts, stops, max_rows) == expected
    assert generated(model, prompts, stops, max_rows) == expected


def test_every_prompt_has_its_own_limit(model, rows):
    limits = [1, 7, 3, 7, 1, 12, 3, 7]
    answers = generated(model, [Prompt(row, limit) for row, limit in zip(rows, limits, strict=True)], stops=[0])
    assert answers == [greedy(model, row, limit, [0]) for row, limit in zip(rows, limits, strict=True)]


def test_the_last_position_of_the_context_can_be_written(model, rows):
    assert context_length(model) == 64
    prompts = [Prompt(rows[7] * 2, 4), Prompt(rows[1], 12)]
    assert generated(model, prompts, stops=[0])[0] == greedy(model, rows[7] * 2, 4, [0])


def test_batches_are_sorted_by_limit_then_from_long_to_short(monkeypatch, rows):
    asked = []

    def remember(model, prompts, stops):
        asked.append([(prompt.max_new_tokens, len(prompt.ids)) for prompt in prompts])
        return [Generated([], ended=True)] * len(prompts)

    monkeypatch.setattr(generation, "_continued", remember)
    limits = [9, 9, 9, 9, 9, 5, 9, 5]
    generated(None, [Prompt(row, limit) for row, limit in zip(rows, limits, strict=True)], max_rows=4)
    assert asked == [[(5, 30), (5, 12)], [(9, 17), (9, 17), (9, 9), (9, 5)], [(9, 2), (9, 1)]]


def test_a_batch_too_large_for_the_memory_is_halved(monkeypatch, rows):
    sizes = []

    def small_memory(model, prompts, stops):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.cuda.OutOfMemoryError("as a GPU would say")
        return [Generated([len(prompt.ids)], ended=True) for prompt in prompts]

    monkeypatch.setattr(generation, "_continued", small_memory)
    answers = generated(None, [Prompt(row, 5) for row in rows])
    assert [answer.ids for answer in answers] == [[len(row)] for row in rows]
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_a_prompt_too_large_alone_is_told(monkeypatch):
    def no_memory(model, prompts, stops):
        raise torch.cuda.OutOfMemoryError("as a GPU would say")

    monkeypatch.setattr(generation, "_continued", no_memory)
    with pytest.raises(UserError, match="a prompt of 3 tokens with an answer of 5 is too large"):
        generated(None, [Prompt([1, 2, 3], 5)])


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch(model, rows):
    prompts = [Prompt(row, 6, temperature=5.0, seed=number) for number, row in enumerate(rows)]
    together = generated(model, prompts, stops=[0])
    assert together == [generated(model, [prompt], stops=[0])[0] for prompt in prompts]
    assert together != generated(model, [Prompt(row, 6) for row in rows], stops=[0])
    other_seeds = generated(model, [Prompt(row, 6, temperature=5.0, seed=99 + len(row)) for row in rows], stops=[0])
    assert together != other_seeds


def test_rows_of_temperature_0_are_greedy_beside_drawn_ones(model, rows):
    mixed = [Prompt(row, 6, temperature=float(number % 2), seed=1) for number, row in enumerate(rows)]
    for number in (0, 2, 4, 6):
        assert generated(model, mixed, stops=[0])[number] == greedy(model, rows[number], 6, [0])


def test_tokens_are_drawn_by_their_probability():
    """Of two tokens with logits 0 and log 3, at temperature 1, the second is drawn three times in four."""
    scores = torch.log(torch.tensor([[1.0, 3.0]]))
    number = 4000
    drawn = [
        int(generation._Drawing([Prompt([1], 1, temperature=1.0, seed=seed)])(None, scores).argmax())
        for seed in range(number)
    ]
    # Four standard deviations of a binomial share.
    assert abs(np.mean(drawn) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / number)
    assert scores.tolist() == torch.log(torch.tensor([[1.0, 3.0]])).tolist()


def test_the_models_own_generation_settings_do_not_make_the_batch_matter(model, rows):
    """A penalty on repetition would count the padding, and sampling would draw."""
    plain = [greedy(model, row, 6, [0]) for row in rows]
    own = model.generation_config
    before = own.to_dict()
    own.update(
        repetition_penalty=5.0, no_repeat_ngram_size=1, do_sample=True, temperature=3.0, top_k=3, use_cache=False
    )
    try:
        assert generated(model, [Prompt(row, 6) for row in rows], stops=[0]) == plain
    finally:
        own.update(**before)


@pytest.mark.parametrize(
    ("family", "end"),
    [
        ("qwen2.5", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("gemma3", "<end_of_turn>"),
        ("phi3", "<|end|>"),
        ("smollm2", "<|im_end|>"),
        ("glm4", "<|user|>"),
    ],
)
def test_the_end_of_a_turn_is_what_the_familys_template_writes(family, end):
    tokenizer = make_tokenizer(FAMILIES[family])
    assert generation._end_of_turn(tokenizer) == [tokenizer.convert_tokens_to_ids(end)]


def test_a_template_may_write_words_behind_an_answer():
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    turn = "{{ message['role'] + ': ' + message['content'] + ' (over)' }}"
    tokenizer.chat_template = f"{{% for message in messages %}}{turn}{{% endfor %}}<|im_end|>"
    assert generation._end_of_turn(tokenizer) == []
    tokenizer.chat_template = "{{ raise_exception('only one turn') }}"
    assert generation._end_of_turn(tokenizer) == []


@pytest.mark.parametrize(("stated", "expected"), [(None, [7]), (5, [5, 7]), ([5, 7, 9], [5, 7, 9])])
def test_stops_are_the_models_and_the_tokenizers(monkeypatch, stated, expected):
    monkeypatch.setattr(generation, "_end_of_turn", lambda tokenizer: [])
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=stated))
    assert stop_ids(model, SimpleNamespace(eos_token_id=7)) == expected


def test_a_model_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(generation, "_end_of_turn", lambda tokenizer: [])
    model = SimpleNamespace(generation_config=None)
    with pytest.raises(UserError, match="the-folder: neither"):
        stop_ids(model, SimpleNamespace(eos_token_id=None, name_or_path="the-folder"))

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.training.miniature import make_model, train_tokenizer

TEXTS = ["the score is 12 of 345", "the score is 12 of 345", "wo der Äpfel 7 fällt"]
TEMPLATE = "{{ bos_token }}{{ messages[0]['content'] }}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return train_tokenizer(TEXTS, 300, TEMPLATE, folder)


def test_special_tokens_and_size(tokenizer):
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<s>", "</s>", "<pad>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert 259 < len(tokenizer) <= 300


@given(st.text())
def test_any_text_comes_back(tokenizer, text):
    # A control token written out in a text would be read as one.
    text = text.replace("<", "(")
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 0
    assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


def test_no_end_of_sequence_is_added(tokenizer):
    assert tokenizer("the score")["input_ids"].count(1) == 0
    assert tokenizer("the score</s>")["input_ids"][-1] == 1


def test_digits_stand_alone(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("is 12 of 345")["input_ids"])
    assert tokens[-3:] == ["3", "4", "5"]
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(map(str.isdigit, token))]


def test_the_saved_tokenizer_is_the_same(tokenizer, folder):
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.chat_template == TEMPLATE
    for text in (*TEXTS, "unseen Ω text  with</s>marks 99"):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_training_again_gives_the_same_ids(tokenizer, tmp_path):
    again = train_tokenizer(iter(TEXTS), 300, TEMPLATE, tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(TEXTS[2])["input_ids"] == tokenizer(TEXTS[2])["input_ids"]


def make(tokenizer, seed, folder):
    return make_model(tokenizer, hidden_size=16, num_layers=2, num_heads=2, context_length=32, seed=seed, folder=folder)


def test_the_seed_decides_the_weights(tokenizer, tmp_path):
    first, same, other = (make(tokenizer, seed, tmp_path / str(n)).state_dict() for n, seed in enumerate((3, 3, 4)))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_saved_model_is_the_same_and_plain(tokenizer, tmp_path):
    made = make(tokenizer, 3, tmp_path).eval()
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float32
    assert (loaded.config.num_hidden_layers, loaded.config.max_position_embeddings) == (2, 32)
    assert (loaded.config.bos_token_id, loaded.config.eos_token_id, loaded.config.pad_token_id) == (0, 1, 2)
    ids = torch.tensor([tokenizer("the score")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, made(ids).logits)
        assert made(ids).logits.shape[-1] == len(tokenizer)

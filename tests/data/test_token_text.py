import json
from importlib.resources import files
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from deita_train.data.rendering import load_tokenizer, rendered_text
from deita_train.data.token_text import control_token, token_texts
from deita_train.errors import UserError
from deita_train.training.miniature import train_tokenizer

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    return train_tokenizer(["the bird sang to the other bird"] * 4, 300, "", tmp_path_factory.mktemp("merging"))


@pytest.fixture(scope="module")
def per_byte(tmp_path_factory):
    """No merges: one token for each byte and three control tokens."""
    return train_tokenizer([], 259, "", tmp_path_factory.mktemp("per_byte"))


def tokens_of(tokenizer, text, add_special_tokens=False):
    ids = tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
    tokens = token_texts(tokenizer, text, ids, add_special_tokens=add_special_tokens)
    assert [token.id for token in tokens] == ids
    return tokens


def test_every_ascii_byte_is_its_own_text(per_byte):
    tokens = tokens_of(per_byte, "a b\n")
    assert [token.text for token in tokens] == ["a", " ", "b", "\n"]
    assert all(token.readable and not token.is_control and not token.added for token in tokens)


def test_control_tokens_in_the_text_have_its_text(per_byte):
    tokens = tokens_of(per_byte, "<s>a</s>")
    assert [(token.text, token.is_control, token.added) for token in tokens] == [
        ("<s>", True, False),
        ("a", False, False),
        ("</s>", True, False),
    ]
    assert not tokens[0].readable


def test_what_the_tokenizer_adds_is_no_part_of_the_text(per_byte):
    tokens = tokens_of(per_byte, "ab", add_special_tokens=True)
    assert [(token.text, token.is_control, token.added) for token in tokens] == [
        ("<s>", True, True),
        ("a", False, False),
        ("b", False, False),
    ]


def test_the_first_of_the_tokens_that_write_one_character_has_it(per_byte):
    # 東 is three bytes in UTF-8.
    tokens = tokens_of(per_byte, "a東b")
    assert [token.text for token in tokens] == ["a", "東", "", "", "b"]
    assert [token.readable for token in tokens] == [True, False, False, False, True]


def test_a_token_put_beside_a_text_is_named_by_the_vocabulary(per_byte):
    token = control_token(per_byte, per_byte.eos_token_id)
    assert (token.text, token.piece, token.is_control, token.added) == ("</s>", "</s>", True, True)


def test_a_space_that_the_tokenizer_trims_off_belongs_to_the_next_token(tmp_path):
    tokenizer = train_tokenizer(["the bird"] * 4, 300, "", tmp_path)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trimmed = tokenizer("the bird", return_offsets_mapping=True)["offset_mapping"]
    assert (3, 4) not in [tuple(span) for span in trimmed] and any(span[0] == 4 for span in trimmed)
    texts = [token.text for token in tokens_of(tokenizer, "the bird")]
    assert "".join(texts) == "the bird"
    assert any(text.startswith(" b") for text in texts)


@given(st.text())
def test_the_texts_are_the_whole_text(merging, text):
    tokens = tokens_of(merging, text, add_special_tokens=True)
    assert "".join(token.text for token in tokens if not token.added) == text
    assert tokens[0].added
    for token in tokens:
        if token.readable:
            assert merging.decode([token.id], clean_up_tokenization_spaces=False) == token.text


def test_other_ids_than_the_texts_are_our_mistake(per_byte):
    with pytest.raises(AssertionError, match="not the ids of this text"):
        token_texts(per_byte, "ab", [5, 6], add_special_tokens=False)


def test_a_tokenizer_without_offsets_is_refused():
    slow = SimpleNamespace(is_fast=False, name_or_path="some/model")
    with pytest.raises(UserError, match=r"some/model has no tokenizer\.json"):
        token_texts(slow, "ab", [5, 6], add_special_tokens=False)  # type: ignore[arg-type]


def test_mistral_writes_every_real_conversation(shared):
    tokenizer = load_tokenizer(str(shared / "tokenizers" / "mistral-7b-v0.1"), TEMPLATE)
    rows = json.loads((shared / "data" / "real_messages_multiturn.json").read_text(encoding="utf-8"))
    parts = 0
    for row in rows:
        text = rendered_text(tokenizer, row["messages"]).text
        tokens = tokens_of(tokenizer, text)
        assert "".join(token.text for token in tokens) == text
        assert tokens[0].piece == "<s>" and tokens[0].is_control
        parts += sum(not token.readable and not token.is_control for token in tokens)
    assert len(rows) == 300
    assert parts > 0  # bytes of characters that the vocabulary does not have

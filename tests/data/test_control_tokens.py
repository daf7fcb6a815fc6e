"""Control tokens by name: as tokens where they are meant, as text where a message spells them, on several kinds of
tokenizers."""

from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deita_train.data.control_tokens import ControlTokens, control_tokens, encode, replaced, token_ids
from deita_train.errors import UserError
from deita_train.training.miniature import train_tokenizer


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    tokenizer = train_tokenizer(["the bird </s> sang"] * 4, 300, "", tmp_path_factory.mktemp("byte_level"))
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False), AddedToken("<think>", special=False)])
    return tokenizer


def word_piece():
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "bird": 4, "[": 5, "sep": 6, "]": 7}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def unigram():
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("\u2581", -3.0),
        ("the", -2.0),
        ("<", -4.0),
        ("/", -4.0),
        ("s", -4.0),
        (">", -4.0),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


def test_a_word_piece_tokenizer_spells_its_separator():
    tokenizer = word_piece()
    text = "the [SEP] bird[SEP]"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == [3, 2, 4, 2]
    assert encode(tokenizer, text, [], add_special_tokens=False).ids == [3, 2, 4, 2]
    encoded = encode(tokenizer, text, [(4, 9)], add_special_tokens=False)
    assert encoded.ids == [3, 5, 6, 7, 4, 2]
    assert encoded.offsets == [(0, 3), (4, 5), (5, 8), (8, 9), (10, 14), (14, 19)]


def test_a_unigram_tokenizer_does_not_find_the_name_among_its_pieces():
    tokenizer = unigram()
    assert tokenizer("the</s>", add_special_tokens=False)["input_ids"] == [2, 3, 1]
    assert tokenizer("the</s>", add_special_tokens=False, split_special_tokens=True)["input_ids"] == [2, 3, 1]
    assert encode(tokenizer, "the</s></s>", [(3, 7)], add_special_tokens=False).ids == [2, 3, 4, 5, 6, 7, 1]


def test_which_added_tokens_are_control_tokens(byte_level):
    text = "<s></s><pad><|im_end|><think>"
    assert ControlTokens(byte_level).spans(text) == [(0, 3), (3, 7), (7, 12), (12, 22)]
    literal = encode(byte_level, text, [(12, 22)], add_special_tokens=False).ids
    assert literal[:3] == [0, 1, 2] and literal[-1] == byte_level.convert_tokens_to_ids("<think>")
    assert byte_level.decode(literal[3:-1]) == "<|im_end|>" and len(literal) > 5


NAMES = ["<s>", "</s>", "<pad>"]
PARTS = st.one_of(
    st.sampled_from([*NAMES, "<", "s>", "</", "<think>", "\U000f0000", "\U000f0003"]), st.text(max_size=5)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(PARTS, st.booleans()), max_size=10))
def test_the_text_around_a_literal_is_encoded_as_without_control_tokens(byte_level, parts):
    """The oracle: the text between two control tokens is encoded by itself, on a tokenizer that adds nothing to it."""
    text, literals, ids, run = "", [], [], ""
    for part, meant in parts:
        if part in NAMES and meant:
            ids += [*plain(byte_level, run), byte_level.convert_tokens_to_ids(part)]
            run = ""
        else:
            if part in NAMES:
                literals.append((len(text), len(text) + len(part)))
            run += part
        text += part
    ids += plain(byte_level, run)
    # Two parts may make a name together, which is neither meant nor a literal.
    assume(len(ControlTokens(byte_level).spans(text)) == sum(part in NAMES for part, _ in parts))
    encoded = control_tokens(byte_level).encode(text, literals, add_special_tokens=False)
    assert encoded.ids == ids
    assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)
    assert [start for start, _ in encoded.offsets] == sorted(start for start, _ in encoded.offsets)


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []


def test_what_the_tokenizer_adds_stays(byte_level):
    ids = encode(byte_level, "a</s>", [(1, 5)], add_special_tokens=True).ids
    assert ids == [byte_level.bos_token_id, *plain(byte_level, "a</s>")]


def test_names_are_hidden_behind_characters_that_no_text_has(byte_level):
    texts = ["a</s>b\U000f0000", "<s>\U000f0002"]
    hidden, names = control_tokens(byte_level).hide(texts)
    assert not set(names) & set("".join(texts))
    assert sorted(names.values()) == sorted([*NAMES, "<|im_end|>"])
    assert [len(text) for text in hidden] == [4, 2]
    assert ["".join(names.get(character, character) for character in text) for text in hidden] == texts


def test_replaced_pieces_and_places():
    text, places, origins = replaced("abcdef", [(1, 3, "X"), (4, 5, "")])
    assert text == "aXdf"
    assert places == [0, 1, 1, 2, 3, 3, 4]
    assert origins == [0, 1, 3, 5, 6]
    assert replaced("", []) == ("", [0], [0])


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(UserError, match="some/model cannot tell which characters a token covers"):
        ControlTokens(SimpleNamespace(is_fast=False, name_or_path="some/model"))  # type: ignore[arg-type]


def piece_model(merges, added):
    """SentencePiece's kind of BPE, whose merges may spell a token that was added."""
    characters = ["<unk>", *sorted({character for pair in merges for character in "".join(pair)} | set("abs<>/!"))]
    vocabulary = dict.fromkeys([*characters, *(first + second for first, second in merges)])
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>"))
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in added])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def test_a_control_token_that_merges_spell_is_text_in_a_message():
    tokenizer = piece_model([("<", "s"), ("<s", ">"), ("<s>", "a"), ("a", "b")], ["<s>"])
    token, vocabulary = tokenizer.convert_tokens_to_ids("<s>"), tokenizer.get_vocab()
    assert encode(tokenizer, "<s>ab", [], add_special_tokens=False).ids == [token, vocabulary["ab"]]
    literal = encode(tokenizer, "<s>ab<s>a", [(0, 3)], add_special_tokens=False)
    assert literal.ids == [vocabulary["<s"], vocabulary[">"], vocabulary["ab"], token, vocabulary["a"]]


@pytest.mark.parametrize("merges", [[("!", "!"), ("a", "!")], [("a", "b")]])
def test_an_ordinary_character_that_serves_as_a_control_token_stays_a_character(merges):
    tokenizer = piece_model(merges, ["!", "</s>"])
    assert ControlTokens(tokenizer).spans("a!!</s>!") == [(3, 7)]
    ids = encode(tokenizer, "a!!</s>!b</s>", [(3, 7)], add_special_tokens=False).ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "!", "!", "<", "/", "s", ">", "!", "b", "</s>"]


@pytest.mark.parametrize("add_special_tokens", [True, False])
@pytest.mark.parametrize("kind", ["byte_level", "word_piece", "unigram"])
def test_ids_alone_are_those_of_the_whole_encoding(byte_level, kind, add_special_tokens):
    tokenizer = {"word_piece": word_piece, "unigram": unigram}.get(kind, lambda: byte_level)()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    texts = [
        "the bird</s>",
        "",
        "Hello, world!",
        "a" * 500,
        "naïve 日本語 \U0001f600 <s> [SEP] the</s>",
        " leading and trailing ",
    ]
    for text in texts:
        for literals in ([], control_tokens(tokenizer).spans(text)):
            whole = encode(tokenizer, text, literals, add_special_tokens=add_special_tokens)
            assert token_ids(tokenizer, text, literals, add_special_tokens=add_special_tokens) == whole.ids

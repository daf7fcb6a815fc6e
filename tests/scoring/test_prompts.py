import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.scoring.prompts import PromptEncoder, digit_token_ids, render
from deita_train.training.miniature import train_tokenizer

COMPLEXITY_OF_X = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: X  \n##Complexity: "
)
QUALITY_OF_X_AND_Y = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. "
    "\n #Question#:\nX\n#Response#:\nY \n##Quality: "
)


def complexity_of(instruction):
    return COMPLEXITY_OF_X.replace(" X ", f" {instruction} ")


def quality_of(instruction, response):
    head, tail = QUALITY_OF_X_AND_Y.split("X\n#Response#:\nY")
    return head + instruction + "\n#Response#:\n" + response + tail


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    """Byte-level BPE with merges, so that tokens span several characters."""
    texts = [quality_of("how are you today", "the answer is twelve"), complexity_of("the question is how")] * 4
    return train_tokenizer(texts, 420, "", tmp_path_factory.mktemp("merging"))


@pytest.fixture(scope="module")
def per_byte(tmp_path_factory):
    """No merges: one token for each byte and one for the beginning, so that lengths can be counted by hand."""
    return train_tokenizer([], 259, "", tmp_path_factory.mktemp("per_byte"))


def test_wire_formats_byte_for_byte():
    assert render("complexity", "X", None) == COMPLEXITY_OF_X
    assert render("quality", "X", "Y") == QUALITY_OF_X_AND_Y


def test_complexity_does_not_read_the_response():
    assert render("complexity", "X", "Y") == COMPLEXITY_OF_X


def test_quality_wants_a_response():
    with pytest.raises(AssertionError, match="response"):
        render("quality", "X", None)


@pytest.mark.parametrize("text", ["{}", "{instruction}", "{output}", "{0} {output} {", "%s \\1 {{instruction}}"])
def test_braces_are_text(text):
    assert render("complexity", text, None) == complexity_of(text)
    assert render("quality", text, "Y") == quality_of(text, "Y")
    assert render("quality", "X", text) == quality_of("X", text)
    assert render("quality", text, text) == quality_of(text, text)


@given(st.text(), st.text())
def test_any_text_stands_unchanged(instruction, response):
    assert render("complexity", instruction, None) == complexity_of(instruction)
    assert render("quality", instruction, response) == quality_of(instruction, response)


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_digit_ids_of_a_byte_level_tokenizer(merging, dimension):
    ids = digit_token_ids(merging, dimension)
    assert merging.convert_ids_to_tokens(ids) == ["1", "2", "3", "4", "5", "6"]
    assert PromptEncoder(merging, dimension, 100).digit_ids == ids


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_digit_ids_of_mistral(dimension):
    path = Path(os.environ.get("DEITA_SHARED") or "unset", "tokenizers", "mistral-7b-v0.1")
    if not path.is_dir():
        pytest.skip("DEITA_SHARED holds no tokenizers/mistral-7b-v0.1")
    tokenizer = load_tokenizer(str(path))
    assert digit_token_ids(tokenizer, dimension) == [28740, 28750, 28770, 28781, 28782, 28784]
    encoded = PromptEncoder(tokenizer, dimension, 4096).encode("X", "Y")
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    whole = tokenizer(render(dimension, "X", "Y") + "4")["input_ids"]
    assert whole == [*encoded.input_ids, 28781]


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_a_tokenizer_that_merges_the_space_and_the_digit_is_refused(dimension):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator([f"score {digit} " * 9 for digit in "123456"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    assert "Ġ3" in tokenizer.get_vocab()
    with pytest.raises(UserError, match=f"digit 1 after the {dimension} prompt"):
        PromptEncoder(tokenizer, dimension, 100)


def text_of(tokenizer, encoded):
    ids = encoded.input_ids
    assert ids[0] == tokenizer.bos_token_id
    return tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False)


def test_a_prompt_that_just_fits_is_whole(per_byte):
    length = 1 + len(quality_of("question", "answer"))
    encoded = PromptEncoder(per_byte, "quality", length).encode("question", "answer")
    assert (text_of(per_byte, encoded), encoded.shortened) == (quality_of("question", "answer"), False)


@pytest.mark.parametrize(
    ("missing", "instruction", "response"),
    [(1, "question", "answe"), (5, "question", "a"), (6, "question", ""), (7, "questio", ""), (14, "", "")],
)
def test_the_response_is_shortened_first_then_the_instruction(per_byte, missing, instruction, response):
    length = 1 + len(quality_of("question", "answer")) - missing
    encoded = PromptEncoder(per_byte, "quality", length).encode("question", "answer")
    assert (text_of(per_byte, encoded), encoded.shortened) == (quality_of(instruction, response), True)
    assert len(encoded.input_ids) == length


@pytest.mark.parametrize(("missing", "instruction"), [(0, "question"), (1, "questio"), (8, "")])
def test_complexity_shortens_the_instruction(per_byte, missing, instruction):
    encoded = PromptEncoder(per_byte, "complexity", 1 + len(complexity_of("question")) - missing).encode(
        "question", None
    )
    assert (text_of(per_byte, encoded), encoded.shortened) == (complexity_of(instruction), missing > 0)


def test_none_when_not_even_the_empty_prompt_fits(per_byte):
    assert PromptEncoder(per_byte, "quality", len(quality_of("", ""))).encode("question", "answer") is None
    assert PromptEncoder(per_byte, "complexity", len(complexity_of(""))).encode("question", None) is None


def test_what_may_not_be_shortened_is_whole_or_none(per_byte):
    length = 1 + len(quality_of("question", "answer"))
    whole, too_long = (
        PromptEncoder(per_byte, "quality", limit, shortens=False).encode("question", "answer")
        for limit in (length, length - 1)
    )
    assert (text_of(per_byte, whole), whole.shortened) == (quality_of("question", "answer"), False)
    assert too_long is None


def test_a_character_of_several_bytes_is_never_torn(per_byte):
    length = 1 + len(complexity_of("ab")) + 1
    encoded = PromptEncoder(per_byte, "complexity", length).encode("abé€", None)
    assert text_of(per_byte, encoded) == complexity_of("ab")


@settings(deadline=None, max_examples=60)
@given(st.text("theanswr wo.\n", max_size=30), st.text("theanswr wo.\n", max_size=30), st.integers(0, 60))
def test_shortening_stops_at_the_last_character_that_fits(merging, instruction, response, room):
    empty = len(merging(quality_of("", ""))["input_ids"])
    limit = empty + room
    encoded = PromptEncoder(merging, "quality", limit).encode(instruction, response)
    whole = quality_of(instruction, response)
    if len(merging(whole)["input_ids"]) <= limit:
        assert (text_of(merging, encoded), encoded.shortened) == (whole, False)
        return
    assert encoded.shortened
    assert len(encoded.input_ids) <= limit
    # The cuts that could have been made, each one character longer than the one before.
    cuts = [quality_of(instruction[:n], "") for n in range(len(instruction))]
    cuts += [quality_of(instruction, response[:n]) for n in range(len(response) + 1)]
    made = [place for place, cut in enumerate(cuts) if merging(cut)["input_ids"] == encoded.input_ids]
    assert made
    assert len(merging(cuts[made[-1] + 1])["input_ids"]) > limit


def text_ids(tokenizer, prompt):
    """The ids of a prompt in which nothing is a control token but the beginning."""
    ids = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [tokenizer.bos_token_id, *ids]


def bisected(tokenizer, instruction, response, limit):
    """The shortened prompt's ids found by halving, with a tokenisation of the whole prompt at each step."""

    def longest_that_fits(text, encode):
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(encode(text[:middle])) <= limit else (low, middle - 1)
        return text[:low]

    def ids(instruction, response):
        return text_ids(tokenizer, quality_of(instruction, response))

    response = longest_that_fits(response, lambda text: ids(instruction, text))
    instruction = longest_that_fits(instruction, lambda text: ids(text, response))
    return ids(instruction, response)


words = st.lists(
    st.sampled_from(["the answer", " is", " twelve", "\n", "  ", "0", "é€", "😀", "</s>", "aaaa"]), max_size=25
)


@settings(deadline=None, max_examples=80)
@given(words.map("".join), words.map("".join), st.integers(0, 60))
def test_shortening_keeps_as_much_as_halving_does_up_to_a_token(merging, instruction, response, room):
    limit = len(merging(quality_of("", ""))["input_ids"]) + room
    encoded = PromptEncoder(merging, "quality", limit).encode(instruction, response)
    assert encoded is not None
    assert len(bisected(merging, instruction, response, limit)) - 1 <= len(encoded.input_ids) <= limit
    assert encoded.input_ids == text_ids(merging, quality_of(encoded.instruction, encoded.response))
    assert instruction.startswith(encoded.instruction) and response.startswith(encoded.response)
    assert encoded.response == "" or encoded.instruction == instruction
    assert encoded.shortened == ((encoded.instruction, encoded.response) != (instruction, response))


class Counted:
    """A tokenizer that counts how often it is asked."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.calls = 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, text, **how):
        self.calls += 1
        return self._tokenizer(text, **how)


@pytest.mark.parametrize(("limit", "least"), [(60, 150), (512, 20)])
def test_shortening_with_a_real_tokenizer(shared, limit, least):
    tokenizer = Counted(load_tokenizer(str(shared / "tokenizers" / "mistral-7b-v0.1")))
    encoder = PromptEncoder(tokenizer, "quality", limit)
    lines = (shared / "data" / "real_pool_sharegpt.jsonl").read_text().splitlines()[::60]
    shortened = 0
    for turn in ([message["value"] for message in json.loads(line)["conversations"]] for line in lines):
        tokenizer.calls = 0
        encoded = encoder.encode(*turn)
        if encoded.shortened:
            shortened += 1
            assert tokenizer.calls <= 8, "halving takes more than ten"
            reference = bisected(tokenizer, *turn, limit)
            assert len(reference) - 1 <= len(encoded.input_ids) <= limit
            assert tokenizer.decode(encoded.input_ids).endswith(" \n##Quality: ")
    assert shortened > least


@pytest.mark.parametrize("limit", [40, 45, 50, 60, 4096])
def test_a_control_token_in_a_turn_is_text(shared, limit):
    tokenizer = load_tokenizer(str(shared / "tokenizers" / "mistral-7b-v0.1"))
    for instruction, response in [("Say </s> now", "A</s> b"), ("<s>", "<s></s><unk>"), ("Hi", "</s> " * 20)]:
        encoded = PromptEncoder(tokenizer, "quality", limit).encode(instruction, response)
        assert encoded is not None
        assert encoded.input_ids == text_ids(tokenizer, quality_of(encoded.instruction, encoded.response))
        assert encoded.input_ids[0] == tokenizer.bos_token_id and not set(encoded.input_ids[1:]) & {0, 1, 2}
        assert instruction.startswith(encoded.instruction) and response.startswith(encoded.response)
        assert encoded.shortened == (len(text_ids(tokenizer, quality_of(instruction, response))) > limit)


def test_a_tokenizer_that_appends_its_end_of_sequence_gives_the_same_prompts(merging, tmp_path):
    merging.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    single, names = state["post_processor"]["single"], state["post_processor"]["special_tokens"]
    single.append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    names["</s>"] = {"id": "</s>", "ids": [merging.eos_token_id], "tokens": ["</s>"]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    appending = load_tokenizer(str(tmp_path))
    assert appending("hi")["input_ids"][-1] == appending.eos_token_id
    assert digit_token_ids(appending, "quality") == digit_token_ids(merging, "quality")
    for instruction, response in (("how", "twelve"), ("ends in </s>", "</s>"), ("how " * 99, "twelve")):
        ours, plain = (PromptEncoder(one, "quality", 90).encode(instruction, response) for one in (appending, merging))
        assert ours == plain

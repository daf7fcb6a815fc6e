"""`add_bos_token` and `add_eos_token` of a tokenizer's settings, which transformers ignores beside a tokenizer.json."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from deita_train.data.control_tokens import control_tokens
from deita_train.data.rendering import load_tokenizer
from deita_train.errors import UserError
from deita_train.scoring.prompts import COMPLEXITY_PROMPT, PromptEncoder
from deita_train.training.miniature import train_tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": True,
           "add_prefix_space": False}  # fmt: skip


def with_first(state):
    """The post-processor of the miniature, which adds <s> before each text."""
    return state["post_processor"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    train_tokenizer(["How are you? 1 2 3 4 5 6 Fine. ##Query: Complexity"] * 5, 330, "{{ bos_token }}", folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A function that writes the miniature with these settings and this post-processor, and gives its folder."""

    def write(post_processor=with_first, **settings):
        state = json.loads((made / "tokenizer.json").read_text())
        state["post_processor"] = post_processor(state) if callable(post_processor) else post_processor
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
        config = json.loads((made / "tokenizer_config.json").read_text()) | settings
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return tmp_path

    return write


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def sequence_of(state):
    return {"type": "Sequence", "processors": [BYTE_LEVEL, state["post_processor"]]}


@pytest.mark.parametrize("post_processor", [with_first, None, BYTE_LEVEL, sequence_of])
@pytest.mark.parametrize(("bos", "eos"), [(True, True), (False, True), (True, False), (None, None)])
def test_what_the_settings_state_is_added(folder, post_processor, bos, eos):
    flags = {"add_bos_token": bos, "add_eos_token": eos}
    path = folder(post_processor, **{name: flag for name, flag in flags.items() if flag is not None})
    tokenizer = load_tokenizer(str(path))
    adds_first = bos is True or post_processor in (with_first, sequence_of)
    expected = [0] * adds_first + plain(tokenizer, "How are you") + [1] * (eos is True)
    assert tokenizer("How are you")["input_ids"] == expected
    assert plain(tokenizer, "How are you") == [token for token in expected if token > 2]
    cut = tokenizer("How are you? Fine. " * 9, truncation=True, max_length=8)["input_ids"]
    assert len(cut) == 8 and (cut[-1] == 1) is (eos is True) and (cut[0] == 0) is adds_first
    pair = tokenizer("How", "you")["input_ids"]
    assert (pair[-1] == 1) is (eos is True) and (pair[0] == 0) is adds_first


def test_transformers_alone_ignores_them(folder):
    path = folder(None, add_bos_token=True, add_eos_token=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer("How")["input_ids"] == plain(tokenizer, "How")


def test_a_tokenizer_that_adds_them_stays_as_it_is(folder):
    path = folder(add_bos_token=True, add_eos_token=False)
    assert (
        load_tokenizer(str(path)).backend_tokenizer.to_str()
        == AutoTokenizer.from_pretrained(path).backend_tokenizer.to_str()
    )


def test_a_scorers_prompt_begins_as_stated_and_never_ends_with_the_end_of_sequence(folder):
    tokenizer = load_tokenizer(str(folder(None, add_bos_token=True, add_eos_token=True)))
    prompt = PromptEncoder(tokenizer, "complexity", 300).encode("How are you?", None)
    assert prompt.input_ids == [0, *plain(tokenizer, COMPLEXITY_PROMPT.format(instruction="How are you?"))]
    spelled = PromptEncoder(tokenizer, "complexity", 300).encode("How </s>", None)
    assert spelled.input_ids[0] == 0 and 1 not in spelled.input_ids


def test_a_text_with_the_name_of_a_token_has_the_stated_ends_too(folder):
    tokenizer = load_tokenizer(str(folder(None, add_bos_token=True, add_eos_token=True)))
    encoded = control_tokens(tokenizer).encode("a <s>", [(2, 5)], add_special_tokens=True)
    assert (encoded.ids[0], encoded.ids[-1], encoded.ids.count(0)) == (0, 1, 1)


def test_an_end_that_the_tokenizer_does_not_have_is_refused(folder):
    path = folder(add_eos_token=True, eos_token=None)
    with pytest.raises(UserError, match=r"tokenizer_config.json: add_eos_token is true, and the tokenizer has no eos_"):
        load_tokenizer(str(path))


def test_a_post_processor_that_cannot_be_completed_is_refused(folder):
    path = folder(ROBERTA, add_eos_token=True, eos_token="<pad>")
    with pytest.raises(UserError, match=r"says that eos_token is added to each text, and the tokenizer does not add"):
        load_tokenizer(str(path))
    assert load_tokenizer(str(folder(ROBERTA, add_bos_token=True, add_eos_token=True)))("a")["input_ids"][-1] == 1


def test_no_other_place_loads_a_tokenizer_that_encodes():
    package = Path(load_tokenizer.__code__.co_filename).parents[1]
    loading = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "AutoTokenizer.from_pretrained" in path.read_text() or "SentenceTransformer(" in path.read_text()
    }
    assert loading == {"data/rendering.py", "stages/resized_model.py", "stages/inference/sentence_embed.py"}

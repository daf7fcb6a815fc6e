"""The shipped chat templates, byte for byte against texts worked out by hand from the published formats."""

from importlib.resources import files

import pytest
from messages import assistant, system, user
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deita_train.data.control_tokens import check_control_tokens
from deita_train.data.rendering import IGNORED, load_tokenizer, render, render_pair
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.errors import UserError

# `vicuna_v1.1` is in test_rendering.py.
BOS, EOS = "<s>", "</s>"
CONTROL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
ANSWERS = [
    "Hello",
    ":)",
    " led by a space",
    "\n\nled by lines",
    "\tled by a tab",
    "6",
    "é",
    "a: b",
    "</s",
    "ends  ",
    "\n",
]


def template(name):
    return files("deita_train.data").joinpath(f"templates/{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A byte-level tokenizer that begins every text with <s> by itself, merges line ends as Llama 3's does, and has
    the control tokens of all formats."""
    made = Tokenizer(models.BPE())
    lines_and_words = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(lines_and_words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [BOS, EOS, *CONTROL]
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["Hello user assistant system\n\n\n\n:) INST"] * 9, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, made.token_to_id(BOS))]
    )
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BOS, eos_token=EOS).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def with_template(folder):
    return {name: load_tokenizer(str(folder), template(name)) for name in ENDS}


# What ends an answer; the texts below show it in its place.
ENDS = {"llama2": EOS, "llama3": "<|eot_id|>", "mistral_instruct": EOS, "zephyr": EOS, "chatml": "<|im_end|>"}
ONE = [user("Hi"), assistant("Hello")]
TWO = [*ONE, user("1+1?"), assistant("2")]
OWN = [system("Be brief."), *TWO]
ASKED = [*ONE, user("Bye")]
# In «» stands what the assistant writes, its end token included.
CASES = {
    ("llama2", "one turn"): (ONE, "<s>[INST] Hi [/INST]« Hello </s>»"),
    ("llama2", "two turns"): (TWO, "<s>[INST] Hi [/INST]« Hello </s>»<s>[INST] 1+1? [/INST]« 2 </s>»"),
    ("llama2", "own system"): (
        OWN,
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]« Hello </s>»<s>[INST] 1+1? [/INST]« 2 </s>»",
    ),
    ("llama2", "trailing user"): (ASKED, "<s>[INST] Hi [/INST]« Hello </s>»<s>[INST] Bye [/INST]"),
    ("llama2", "texts are trimmed"): ([user(" Hi\n"), assistant("\n a  b ")], "<s>[INST] Hi [/INST]« a  b </s>»"),
    ("llama3", "one turn"): (
        ONE,
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello<|eot_id|>»",
    ),
    ("llama3", "two turns"): (
        TWO,
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«2<|eot_id|>»",
    ),
    ("llama3", "own system"): (
        OWN[:3],
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello<|eot_id|>»",
    ),
    ("llama3", "leading assistant, texts are trimmed"): (
        [assistant(" Welcome\n"), user("\nHi ")],
        "<s><|start_header_id|>assistant<|end_header_id|>\n\n«Welcome<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    ),
    ("mistral_instruct", "one turn"): (ONE, "<s>[INST] Hi [/INST]« Hello</s>»"),
    ("mistral_instruct", "two turns"): (TWO, "<s>[INST] Hi [/INST]« Hello</s>»[INST] 1+1? [/INST]« 2</s>»"),
    ("mistral_instruct", "own system"): (
        OWN,
        "<s>[INST] Be brief.\n\nHi [/INST]« Hello</s>»[INST] 1+1? [/INST]« 2</s>»",
    ),
    ("mistral_instruct", "trailing user"): (ASKED, "<s>[INST] Hi [/INST]« Hello</s>»[INST] Bye [/INST]"),
    ("mistral_instruct", "texts as they are"): (
        [user(" Hi\n"), assistant("\n a ")],
        "<s>[INST]  Hi\n [/INST]« \n a </s>»",
    ),
    ("zephyr", "one turn"): (ONE, "<s><|user|>\nHi</s>\n<|assistant|>\n«Hello</s>»\n"),
    ("zephyr", "two turns"): (
        TWO,
        "<s><|user|>\nHi</s>\n<|assistant|>\n«Hello</s>»\n<|user|>\n1+1?</s>\n<|assistant|>\n«2</s>»\n",
    ),
    ("zephyr", "own system"): (
        OWN[:3],
        "<s><|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n«Hello</s>»\n",
    ),
    ("zephyr", "leading assistant, answers begin with a word"): (
        [assistant("\n Welcome\n"), user("\nHi ")],
        "<s><|assistant|>\n«Welcome\n</s>»\n<|user|>\n\nHi </s>\n",
    ),
    ("chatml", "one turn"): (ONE, "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello<|im_end|>»\n"),
    ("chatml", "two turns"): (
        TWO,
        "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello<|im_end|>»\n"
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n«2<|im_end|>»\n",
    ),
    ("chatml", "own system"): (
        OWN[:3],
        "<s><|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello<|im_end|>»\n",
    ),
    ("chatml", "leading assistant, answers begin with a word"): (
        [assistant("\n Welcome\n"), user("\nHi ")],
        "<s><|im_start|>assistant\n«Welcome\n<|im_end|>»\n<|im_start|>user\n\nHi <|im_end|>\n",
    ),
}


@pytest.mark.parametrize(
    ("case", "messages", "marked"), [(case, *of) for case, of in CASES.items()], ids=map(str, CASES)
)
def test_the_rendered_text_and_what_is_trained(with_template, case, messages, marked):
    tokenizer = with_template[case[0]]
    text = marked.replace("«", "").replace("»", "")
    assert rendered_text(tokenizer, messages).text == text
    rendered = render(tokenizer, messages, None)
    assert rendered.input_ids == plain_ids(tokenizer, text)
    # Every span begins and ends at a token: the pieces' ids, one after the other, are the whole's.
    pieces = [piece.split("«") for piece in marked.split("»")]
    ids = [(plain_ids(tokenizer, part), place == 1) for piece in pieces for place, part in enumerate(piece)]
    assert rendered.labels == [token if trained else IGNORED for part, trained in ids for token in part]
    end = tokenizer.convert_tokens_to_ids(ENDS[case[0]])
    assert [span[-1] for span, trained in ids if trained] == [end] * marked.count("»")


def plain_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ENDS)
def test_every_format_has_its_texts(name):
    assert {"one turn", "two turns", "own system"} <= {case for of, case in CASES if of == name}


@pytest.mark.parametrize("name", ENDS)
def test_a_sequence_begins_once_though_the_tokenizer_begins_every_text(with_template, name):
    tokenizer = with_template[name]
    assert tokenizer("Hi")["input_ids"][0] == tokenizer.bos_token_id
    ids = render(tokenizer, TWO, None).input_ids
    # Llama 2 begins every exchange, as published.
    assert ids.count(tokenizer.bos_token_id) == (2 if name == "llama2" else 1)
    assert ids[0] == tokenizer.bos_token_id and ids[1] != tokenizer.bos_token_id


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_prompt_is_a_token_prefix_and_the_rest_is_trained(with_template, name, answer):
    tokenizer = with_template[name]
    for before in ([user("Hi")], [system("S"), *TWO, user("And?")]):
        pair = render_pair(tokenizer, before, answer, "Other", None)
        whole = render(tokenizer, [*before, assistant(answer)], None)
        end = plain_ids(tokenizer, "\n") if name in ("zephyr", "chatml") else []
        assert whole.input_ids == pair.prompt_ids + pair.chosen_ids
        assert pair.chosen_ids[len(pair.chosen_ids) - len(end) :] == end
        trained = [label for label in whole.labels[len(pair.prompt_ids) :] if label != IGNORED]
        assert trained + end == pair.chosen_ids


@pytest.mark.parametrize("name", ["llama2", "mistral_instruct"])
@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([assistant("Welcome"), user("Hi"), assistant("Yo")], "in turn, the user first"),
        ([user("Hi"), user("There"), assistant("Yo")], "in turn, the user first"),
        ([*ONE, system("Be brief."), user("Hi")], "at most one system message"),
        ([system("Be brief.")], "into the first user message, and there is none"),
    ],
)
def test_what_a_format_cannot_write_is_refused(with_template, name, messages, why):
    with pytest.raises(RowRefused, match=f"refused_by_template: the template says: .*{why}"):
        render(with_template[name], messages, None)


def test_chatml_begins_nothing_for_a_model_without_such_a_token(folder):
    tokenizer = load_tokenizer(str(folder), template("chatml"))
    tokenizer.bos_token = None
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert rendered_text(tokenizer, ONE).text == text
    assert render(tokenizer, ONE, None).input_ids == plain_ids(tokenizer, text)


@pytest.fixture(scope="module")
def mistral_folder(shared):
    return str(shared / "tokenizers" / "mistral-7b-v0.1")


@pytest.mark.parametrize(("name", "lacks"), [("chatml", "<|im_start|>, <|im_end|>"), ("llama3", "<|start_header_id|>")])
def test_a_control_token_that_would_be_split_is_refused(mistral_folder, name, lacks):
    with pytest.raises(UserError) as caught:
        load_tokenizer(mistral_folder, template(name))
    assert f"writes {lacks}" in str(caught.value)
    assert "mistral-7b-v0.1 does not have as one token" in str(caught.value)


def test_mistral_has_what_the_other_formats_write(mistral_folder):
    names = ["vicuna_v1.1", "llama2", "mistral_instruct", "zephyr"]
    assert [load_tokenizer(mistral_folder, template(name)).chat_template for name in names] == [*map(template, names)]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("{{ '<|eot_id|></s>' }}", None),
        ("{{ '<|endoftext|>' }}", r"writes <\|endoftext\|>, which"),
        ("{{ '<\uff5cUser\uff5c>' + '<end_of_turn>' }}", "writes <\uff5cUser\uff5c>, <end_of_turn>, which"),
        ("{# not <|endoftext|> #}{{ x }}", None),
        ("{#- plain text: <|user|> <|endoftext|> -#}{{ '<|user|>' + '<|endoftext|>' }}", None),
        ("{# plain text: <|user|> #}{{ '<|user|>' + '<|endoftext|>' }}", r"writes <\|endoftext\|>, which"),
    ],
)
def test_which_texts_of_a_template_are_control_tokens(folder, text, refused):
    if refused is None:
        assert load_tokenizer(str(folder), text).chat_template == text
    else:
        with pytest.raises(UserError, match=refused):
            load_tokenizer(str(folder), text)


def test_of_the_models_own_template_only_the_answer_is_looked_at(folder):
    tokenizer = load_tokenizer(str(folder))
    own = "{{ '<|user|>' }}{% generation %}{{ '<|eot_id|>' }}{% endgeneration %}"
    with pytest.raises(UserError, match=r"writes <\|user\|>, which"):
        check_control_tokens(tokenizer, own)
    tokenizer.chat_template = own
    check_control_tokens(tokenizer, own)
    tokenizer.chat_template = own.replace("<|eot_id|>", "<|endoftext|>")
    with pytest.raises(UserError, match=r"writes <\|endoftext\|>, which"):
        check_control_tokens(tokenizer, tokenizer.chat_template)

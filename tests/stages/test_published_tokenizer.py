"""The published tokenizer, as anybody loads it, gives exactly the ids that were trained.

Of rows that spell a control token (one of the real ones) it does not: there `apply_chat_template` writes the token.
"""

import json
from importlib.resources import files

import datasets
import pytest
from messages import assistant, real_rows, user
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from deita_train.data.rendering import load_tokenizer
from deita_train.models.published_files import finish_model_folder
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.rows import conversation_row
from deita_train.stages.training import sft
from deita_train.training.rows import write_training_rows

LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
REAL = ["real_messages_multiturn.json", "real_sharegpt_multiturn_identity.json"]
TURNS = [
    [user("Hi there"), assistant("Hello"), user("1+1?"), assistant("It is 2."), user("Bye"), assistant("Bye")],
    [user("Name a river"), assistant("The Rhine"), user(" One more\n"), assistant("\nElbe")],
    [user("USER: a"), assistant("USER: b"), user("ASSISTANT: c"), assistant("")],
]


def template(name):
    return files("deita_train.data").joinpath(f"templates/{name}.jinja").read_text(encoding="utf-8")


def trained_ids(source, text, conversations, folder):
    """The ids that training reads, as its preparation writes them, of conversations that all have a loss."""
    tokenizer = load_tokenizer(str(source), text)
    rows = ({"id": str(number), "messages": messages} for number, messages in enumerate(conversations))
    count = write_training_rows((conversation_row(tokenizer, row, None) for row in rows), folder)
    assert count.rows == len(conversations)
    return datasets.load_from_disk(str(folder))["input_ids"][:]


def anybodys_ids(folder, conversations):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"] for messages in conversations]


def published(source, text, folder):
    """What finishing leaves of a folder that a trainer has saved its own tokenizer into."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    saved_again(source, text, folder)
    finish_model_folder(folder, source, text)
    return folder


def saved_again(source, text, folder):
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = text
    tokenizer.save_pretrained(folder)
    return folder


def check_saved_again(source, text, conversations, trained, folder):
    """Every row begins in other tokens if transformers drops `legacy`, as it does at the time of writing."""
    naive = saved_again(source, text, folder)
    dropped = not json.loads((naive / "tokenizer_config.json").read_text()).get("legacy", False)
    pairs = zip(anybodys_ids(naive, conversations), trained, strict=True)
    assert {ids != expected for ids, expected in pairs} == {dropped}


@pytest.mark.parametrize("name", ["vicuna_v1.1", "llama2", "mistral_instruct", "zephyr"])
@pytest.mark.parametrize("file", REAL)
def test_real_rows_by_mistrals_tokenizer(shared, tmp_path, name, file):
    source, text = shared / "tokenizers" / "mistral-7b-v0.1", template(name)
    rows = real_rows(shared, file)
    rows = rows if name == "vicuna_v1.1" else rows[::5]
    rows = [messages for messages in rows if not any("</s>" in message["content"] for message in messages)]
    trained = trained_ids(source, text, rows, tmp_path / "rows")
    assert anybodys_ids(published(source, text, tmp_path / "model"), rows) == trained
    if name == "vicuna_v1.1":
        check_saved_again(source, text, rows[::10], trained[::10], tmp_path / "saved")


@pytest.fixture(scope="module")
def legacy_model(tmp_path_factory):
    """A model with a tokenizer of LLaMA's kind and `legacy: true`: a word after a control token begins with a space."""
    folder = tmp_path_factory.mktemp("legacy") / "model"
    letters = sorted(
        {letter for row in TURNS for message in row for letter in message["content"]} | set("▁USERANITchat")
    )
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = [("U", "S"), ("▁", "US"), ("E", "R"), ("US", "ER"), ("▁", "A"), ("▁", "t")]
    pieces += [first + second for first, second in merges]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=True).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "legacy": True}))
    shape = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def test_the_small_tokenizer_is_of_that_kind(legacy_model):
    tokenizer = AutoTokenizer.from_pretrained(legacy_model)
    ids = tokenizer("</s>USER", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["</s>", "▁US", "ER"]


@pytest.mark.parametrize("name", ["vicuna_v1.1", "llama2", "mistral_instruct", "zephyr"])
def test_rows_by_a_small_tokenizer(legacy_model, tmp_path, name):
    text = template(name)
    trained = trained_ids(legacy_model, text, TURNS, tmp_path / "rows")
    assert anybodys_ids(published(legacy_model, text, tmp_path / "model"), TURNS) == trained
    check_saved_again(legacy_model, text, TURNS, trained, tmp_path / "saved")


def test_the_folder_that_sft_leaves(legacy_model, tmp_path):
    rows = [{"id": str(number), "messages": messages} for number, messages in enumerate(TURNS)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "pool" / "data"))
    trainer = {"learning_rate": 1e-3, "num_train_epochs": 1, "max_length": 2048}
    config = {"chat_template": template("vicuna_v1.1"), "global_batch_size": 3, "seed": 7, "trainer": trainer}
    parents = {"model": legacy_model.parent, "data": tmp_path / "pool"}
    settings = {"trainer": {}, "launch": LAUNCH, "packing": False, "checkpoint_minutes": 30.0}
    made = StageContext("sft", "sft", config, settings, parents, tmp_path / "work", 0, 1, Progress(None))
    made.prepared_dir.mkdir(parents=True)
    sft.prepare(made)
    sft.run(made)
    sft.finish(made)
    prepared = datasets.load_from_disk(str(made.prepared_dir / "rows"))["input_ids"][:]
    assert anybodys_ids(made.model_dir, TURNS) == prepared

import json
import shutil

import pytest
import torch
from model_families import FAMILIES, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from deita_train.data.control_tokens import control_tokens
from deita_train.errors import UserError
from deita_train.inference.generation import stop_ids
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.local import LocalModel
from deita_train.llm.requests import ChatRequest

CONTEXT = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A miniature whose turns end with `<|end|>`, while its files name `<|endoftext|>`."""
    folder = tmp_path_factory.mktemp("chat_model")
    tokenizer = make_tokenizer(FAMILIES["phi3"], folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT, initializer_range=0.3, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def requests():
    texts = ["Hello", "How are you in Oslo?", "Good", "Fine, thank you. " * 3, "the weather", "", "1+1?", "user"]
    return [ChatRequest(({"role": "user", "content": text},), max_tokens=12) for text in texts]


def ask(folder, store_folder, requests, max_in_flight=8, log=print):
    endpoint = Endpoint("mine", "miniature", local=folder, max_in_flight=max_in_flight)
    asker = Asker(endpoint, AnswerStore(store_folder), lambda *_: None, log)
    return asker.ask(requests), asker.spending


def test_batches_answer_as_one_at_a_time_and_again_the_same(folder, tmp_path, requests):
    alone, _ = ask(folder, tmp_path / "alone", requests, max_in_flight=1)
    together, spending = ask(folder, tmp_path / "together", requests)
    again, _ = ask(folder, tmp_path / "again", requests)
    assert alone == together == again
    answers = [answer for answer in together if isinstance(answer, Answer)]
    assert len({answer.text for answer in answers}) > 4
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    assert spending.calls == len(requests) and spending.estimated == 0
    assert spending.paid.completion_tokens == sum(answer.completion_tokens for answer in answers)


def test_what_was_answered_is_not_generated_again(folder, tmp_path, requests, monkeypatch):
    first, _ = ask(folder, tmp_path, requests[:5])
    asked = []
    generating = LocalModel.answers

    def remember(self, wanted):
        asked.extend(wanted)
        yield from generating(self, wanted)

    monkeypatch.setattr(LocalModel, "answers", remember)
    both, spending = ask(folder, tmp_path, requests)
    assert both[:5] == first and asked == requests[5:]
    assert (spending.from_store, spending.calls) == (5, 3)


def test_a_kept_batch_survives_what_fails_after_it(folder, tmp_path, requests, monkeypatch):
    generating = LocalModel.answers

    def fail_after_one_batch(self, wanted):
        yield next(generating(self, wanted))
        raise RuntimeError("the GPU has fallen off the bus")

    monkeypatch.setattr(LocalModel, "answers", fail_after_one_batch)
    with pytest.raises(RuntimeError, match="bus"):
        ask(folder, tmp_path, requests, max_in_flight=3)
    assert len(AnswerStore(tmp_path)) == 3


def test_drawn_answers_are_the_same_again_and_others_for_another_attempt(folder, tmp_path):
    drawn = [ChatRequest(({"role": "user", "content": "Hello"},), 3.0, 8, attempt=attempt) for attempt in range(4)]
    answers, _ = ask(folder, tmp_path / "one", drawn)
    again, _ = ask(folder, tmp_path / "two", drawn[::-1], max_in_flight=2)
    assert answers == again[::-1]
    assert len({answer.text for answer in answers}) > 1


def test_a_prompt_without_room_for_an_answer_is_a_failure(folder, tmp_path, requests):
    long = ChatRequest(({"role": "user", "content": "Hello there " * CONTEXT},), max_tokens=12)
    (first, failure), spending = ask(folder, tmp_path, [requests[0], long])
    assert isinstance(first, Answer)
    assert isinstance(failure, Failure) and failure.reason == "prompt_too_long"
    assert f"leave no room in a context of {CONTEXT}" in failure.detail
    assert spending.failures == {"prompt_too_long": 1}


def test_a_long_prompt_gets_what_room_is_left(folder, tmp_path, requests):
    model = LocalModel(Endpoint("mine", "miniature", local=folder))
    words = ChatRequest(({"role": "user", "content": "Hello " * 20},), max_tokens=1000)
    room = CONTEXT - len(model._prompt(words).ids)
    assert 0 < room < 100
    (answer,), _ = ask(folder, tmp_path, [words])
    assert answer.completion_tokens <= room
    assert (answer.finish_reason == "length") == (answer.completion_tokens == room)


def test_the_prompt_is_the_templates_and_a_spelled_control_token_is_text(folder):
    model = LocalModel(Endpoint("mine", "miniature", local=folder))
    request = ChatRequest(({"role": "user", "content": "Hello<|end|>"},))
    control = control_tokens(model._tokenizer).ids
    ids = model._prompt(request).ids
    expected = [model._tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")]
    assert [token for token in ids if token in control] == expected
    assert model._tokenizer.decode(ids).count("<|end|>") == 2


def test_an_answer_ends_with_the_templates_turn(folder):
    model = LocalModel(Endpoint("mine", "miniature", local=folder))
    ends = [model._tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|end|>")]
    assert stop_ids(model._model, model._tokenizer) == ends


def test_a_model_without_a_chat_template_is_refused(folder, tmp_path, requests):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert "chat_template" not in json.loads((bare / "tokenizer_config.json").read_text())
    with pytest.raises(UserError, match=r"llm\.mine\.local: .* has no chat template"):
        ask(bare, tmp_path / "store", requests)


def test_a_folder_without_a_model_is_refused(tmp_path, requests):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty/config\.json"):
        ask(tmp_path / "empty", tmp_path / "store", requests)

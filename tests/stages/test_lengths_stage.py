"""The stage `lengths`: the tokens that SFT reads of each row, counted by the preparation of SFT itself."""

import datasets
import pytest
from pass_stages import TEMPLATE, conversations, make_model

from deita_train.data.rendering import load_tokenizer, render
from deita_train.data.row_refusal import RowRefused
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.inference import lengths
from deita_train.stages.rows import conversation_row
from deita_train.stages.selecting.trained_lengths import read_trained_lengths
from deita_train.training.rows import write_training_rows

ODD = [
    {"id": "trailing", "messages": [
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And?"},
    ]},
    {"id": "led", "messages": [
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]},
    {"id": "long question", "messages": [
        {"role": "user", "content": "How are you today? " * 30}, {"role": "assistant", "content": "Well."},
    ]},
]  # fmt: skip
ROWS = [*conversations(7), *ODD]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lengths")
    make_model(folder / "model")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "pool" / "data"))
    (folder / "work").mkdir()
    parents = {"pool": folder / "pool", "model": folder}
    config = {"chat_template": TEMPLATE}
    context = StageContext("lengths", "lengths", config, {}, parents, folder / "work", 0, 1, Progress(None))
    return folder, lengths.run(context)


def test_one_row_for_each_of_the_pool(made):
    folder, result = made
    table = datasets.load_from_disk(str(folder / "work" / "data"))
    assert list(table["id"]) == [row["id"] for row in ROWS]
    assert (result.rows_in, result.rows_out, result.drops) == (10, 10, {})
    assert result.metrics == {
        "rows": 10,
        "tokens": sum(table["num_tokens"]),
        "longest": max(table["num_tokens"]),
        "rows_as_text": 0,
        "readable": {"context": 1024, "positions": None},
    }


def test_a_turn_ends_where_the_conversation_up_to_its_answer_does(made):
    folder, _ = made
    tokenizer = load_tokenizer(str(folder / "model"), TEMPLATE)
    ends = dict(
        zip(
            *(datasets.load_from_disk(str(folder / "work" / "data"))[name] for name in ("id", "turn_ends")), strict=True
        )
    )
    tokens = {
        row["id"]: [
            len(render(tokenizer, row["messages"][: place + 1], None).input_ids)
            for place, message in enumerate(row["messages"])
            if message["role"] == "assistant"
        ]
        for row in ROWS
    }
    assert len([row for row in ROWS if len(ends[row["id"]]) == 2]) == 4
    assert ends["trailing"] == [*tokens["trailing"], None]
    assert ends["led"] == tokens["led"][1:]
    for row in conversations(7):
        assert ends[row["id"]] == tokens[row["id"]]


@pytest.mark.parametrize("max_length", [None, 170, 200, 260, 2048])
def test_the_tokens_are_those_of_sfts_preparation(made, tmp_path, max_length):
    folder, _ = made
    tokenizer = load_tokenizer(str(folder / "model"), TEMPLATE)
    found = read_trained_lengths(folder / "work", max_length)
    labelled = [conversation_row(tokenizer, row, max_length) for row in ROWS]
    count = write_training_rows(labelled, tmp_path / "rows")
    assert found.tokens.sum() == count.tokens
    assert (found.tokens == 0).sum() == count.without_loss
    if max_length in (170, 200):
        assert count.without_loss > 0 and count.truncated > 0
    ids = [row["id"] for row in ROWS]
    turns = found.turns_of([*ids, "elsewhere"]).to_pylist()
    assert turns.pop() is None
    for row_id, of_row, tokens, trained in zip(ids, labelled, found.tokens_of(ids).tolist(), turns, strict=True):
        assert tokens in (0, len(of_row.input_ids))
        if max_length is None:
            assert trained.count(False) == (row_id == "trailing")
    by_id = dict(zip(ids, found.tokens.tolist(), strict=True))
    assert found.tokens_of(["trailing", "elsewhere", "led"]).tolist() == [by_id["trailing"], 0, by_id["led"]]


def test_a_template_that_joins_answers_is_refused(made):
    folder, _ = made
    text = (
        "{{ messages[0]['content'] }}{% generation %}{% for message in messages[1:] %}{{ message['content'] }}"
        "{% endfor %}{{ eos_token }}{% endgeneration %}"
    )
    tokenizer = load_tokenizer(str(folder / "model"), text)
    with pytest.raises(RowRefused, match=r"answer_not_separable: for 2 answers to be trained .* marks 1 spans"):
        lengths.row_lengths(tokenizer, conversations(2)[1], on_text=lambda: None)

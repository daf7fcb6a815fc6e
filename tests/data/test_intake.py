import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.data.conversations import UnusableRow, detect_format
from deita_train.data.intake import Account, RowIds, RowSource, chosen_format, instruction_fraction
from deita_train.data.intake_notes import intake_notes
from deita_train.data.pairs import detect_pair_format
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError


def source_row(index=0, **columns):
    return SourceRow(index, f"f:{index + 1}", columns)


def test_instruction_fraction_is_the_published_digest_of_the_first_user_message():
    # SHA-256 of "a" begins ca978112 ca1bbdca; 0xca978112 / 2**32 = 0.79137...
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert instruction_fraction(messages) == pytest.approx(0xCA978112CA1BBDCA / 2**64, abs=1e-15)
    assert instruction_fraction(messages) == instruction_fraction(messages[1:2])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_instruction_fraction_lies_in_the_unit_interval(text):
    assert 0 <= instruction_fraction([{"role": "user", "content": text}]) < 1


@pytest.mark.parametrize(
    ("share", "wanted"), [(None, True), ((0.79, 0.8), True), ((0.8, 1), False), ((0, 0.79), False)]
)
def test_a_source_wants_what_lies_in_its_share(share, wanted):
    source = RowSource("s", [], instruction_share=share)
    assert source.wants([{"role": "user", "content": "a"}]) is wanted  # 0.79137..., as above


def test_ids_come_from_the_first_column_that_has_one():
    ids = RowIds("s", ("id", "prompt_id"))
    rows = [
        source_row(0, id="a", prompt_id="p"),
        source_row(1, id=None, prompt_id="p"),
        source_row(2),
        source_row(3, id=4),
    ]
    assert [ids.add(row) for row in rows] == ["a", "p", "s:2", "4"]
    assert list(zip(ids.ids, ids.positions, strict=True)) == [("a", "f:1"), ("p", "f:2"), ("s:2", "f:3"), ("4", "f:4")]


@pytest.mark.parametrize(("repeated", "first"), [("p", "f:2"), ("s:0", "f:1")])
def test_a_repeated_id_is_named_with_both_places_and_its_column(repeated, first):
    ids = RowIds("s", ("id", "prompt_id"))
    ids.add(source_row(0))
    ids.add(source_row(1, prompt_id="p"))
    with pytest.raises(UserError) as caught:
        ids.add(source_row(6, id=repeated))
    for part in (repr(repeated), first, "f:7", "remove the column 'id'"):
        assert part in str(caught.value)


def test_several_pairs_of_one_prompt_keep_its_name():
    ids = RowIds("s", ("id", "prompt_id"))
    assert [ids.add(source_row(number, prompt_id="p")) for number in range(3)] == ["p", "p:1", "p:2"]


def test_an_account_keeps_five_examples_per_reason_and_adds_up():
    account = Account(rows_in=2)
    for index in range(7):
        account.drop(source_row(index), UnusableRow("unknown_role", f"no {index}", ("tool",)))
    account.drop(source_row(9), UnusableRow("not_text", "null"))
    closed = account.closed(2, {"b", "a"}, {})
    assert (closed["rows_in"], closed["rows_out"], closed["drops"]) == (10, 2, {"unknown_role": 7, "not_text": 1})
    assert closed["examples"] == {"unknown_role": [f"f:{i + 1}: no {i}" for i in range(5)], "not_text": ["f:10: null"]}
    assert (closed["unknown_roles"], closed["columns_left_out"]) == ({"tool": 7}, ["a", "b"])
    with pytest.raises(AssertionError):
        account.closed(3, (), {})


def test_what_kept_rows_hold_is_counted():
    account = Account()
    messages = [
        {"role": "user", "content": "q", "score": 1, "name": "Bo"},
        {"role": "assistant", "content": "a", "score": 2, "meta": {}, "weight": 0},
        {"role": "assistant", "content": "a"},
    ]
    account.keep(messages, 2, ["system"])
    account.keep(messages[:1], 0, [])
    closed = account.closed(2, (), {"b": "because", "a": "too"})
    assert closed["message_fields"] == {"score": 3, "meta": 1}
    assert (closed["system_messages_left_out"], closed["columns_kept_aside"]) == (2, {"system": 1})
    assert list(closed["json_columns"].items()) == [("a", "too"), ("b", "because")]
    assert list(intake_notes(closed)) == [
        "Column 'a' is kept as JSON: too.",
        "Column 'b' is kept as JSON: because.",
        "Column 'system' stays a column in 1 row: the conversation has a system message of its own, or the column does "
        "not hold text.",
        "3 messages with a field 'score', which is kept, and which only a chat template of your own may read.",
        "1 message with a field 'meta', which is kept, and which only a chat template of your own may read.",
        "2 system messages without text, left out of the conversation.",
    ]


def test_plain_rows_need_no_note():
    account = Account()
    account.keep([{"role": "user", "content": "q"}], 0, [])
    assert list(intake_notes(account.closed(1, (), {}))) == []
    assert list(intake_notes({"columns_left_out": ["a", "b"]})) == ["Columns of the source that were left out: a, b."]


def test_an_id_with_a_lone_surrogate_is_not_kept():
    ids = RowIds("s")
    with pytest.raises(UnusableRow) as caught:
        ids.add(source_row(0, id="\udc00"))
    assert caught.value.reason == "not_text" and len(ids) == 0


ALPACA = {"instruction": "q", "output": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}]}
FIRST_OF_MANY = 100


@pytest.mark.parametrize(
    ("rows", "format"),
    [
        ([{"instruction": "unanswered"}, ALPACA], "alpaca"),
        ([{"conversations": [], "x": 1}, CHAT, CHAT], "messages"),
        ([CHAT, ALPACA], "messages"),
        ([ALPACA, CHAT], "alpaca"),
        # As one table has them: every column in every row, null where a row has nothing.
        (
            [{**ALPACA, "messages": None}, {"instruction": None, "output": None, **CHAT}, {**ALPACA, "messages": None}],
            "alpaca",
        ),
        ([{"instruction": "q", "output": None}, {"instruction": "q", "output": None}], "alpaca"),
        ([{"note": 1}] * (FIRST_OF_MANY - 1) + [ALPACA], "alpaca"),
    ],
)
def test_most_of_the_first_rows_decide_the_format(rows, format):
    source = [source_row(index, **row) for index, row in enumerate(rows)]
    found, following = chosen_format(iter(source), detect_format)
    assert found == format and list(following) == source


def test_the_hundred_and_first_row_does_not_decide():
    rows = [source_row(index, note=1) for index in range(FIRST_OF_MANY)] + [source_row(100, **ALPACA)]
    with pytest.raises(UserError, match=r"^f:1: the columns 'note' fit no known format"):
        chosen_format(rows, detect_format)


def test_the_columns_of_all_first_rows_are_listed_where_none_fits():
    rows = [source_row(0, title="a"), source_row(1, title="b", body="c"), source_row(2, text="d")]
    with pytest.raises(UserError) as caught:
        chosen_format(rows, detect_format)
    message = str(caught.value)
    assert message.startswith("f:1: the columns 'title' fit no known format")
    assert message.endswith("; of the first 3 rows, others have 'body', 'text'")


def test_pairs_are_recognised_by_most_of_the_first_rows_too():
    answers = {"chosen": "a", "rejected": "b"}
    rows = [source_row(0, prompt="q"), source_row(1, prompt="q", **answers)]
    assert chosen_format(rows, detect_pair_format)[0] == "prompt_pairs"

import datetime
import json
import os
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data import row_table
from deita_train.data.as_text import conversation_as_text, message_text
from deita_train.data.conversations import FORMAT_COLUMNS, FORMATS
from deita_train.data.pool import PoolSource, build_pool, unique_ids
from deita_train.data.row_table import MESSAGES_TYPE
from deita_train.data.sources import SourceRow
from deita_train.data.texts import as_column
from deita_train.errors import UserError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def source(name, rows, **kwargs):
    return PoolSource(name, [SourceRow(i, f"{name}:{i + 1}", row) for i, row in enumerate(rows)], **kwargs)


def row(question="q", **columns):
    return {"messages": [{"role": "user", "content": question}, TURNS[1]], **columns}


def error(*sources):
    with pytest.raises(UserError) as caught:
        build_pool(sources)
    return str(caught.value)


def test_ids_and_sources_are_the_rows_own_or_made():
    rows = [row(), row(id="x", source="wiki"), row(id=7, source=None), row(id=None)]
    pool, report = build_pool([source("p", rows)])
    assert pool["id"][:] == ["p:0", "x", "7", "p:3"]
    assert pool["source"][:] == ["p", "wiki", "p", "p"]
    assert pool["messages"][0] == TURNS
    assert pool.column_names == ["id", "messages", "source"]
    assert (report.rows_in, report.rows_out, report.columns_left_out) == (4, 4, [])


def test_a_made_id_counts_the_rows_that_were_dropped():
    pool, _ = build_pool([source("p", [row(), {"messages": []}, row()])])
    assert pool["id"][:] == ["p:0", "p:2"]


def test_repeats_across_sources_get_their_source_in_front_in_either_order():
    first, second = source("a", [row(id="1"), row(id="2")]), source("b", [row(id=2), row()])
    assert build_pool([first, second])[0]["id"][:] == ["1", "a:2", "b:2", "b:1"]
    assert build_pool([second, first])[0]["id"][:] == ["b:2", "b:1", "1", "a:2"]


def test_repeats_within_a_source_are_an_error():
    message = error(source("p", [row(id="1"), row(), row(id=1)]))
    for part in ("'1'", "p:1", "p:3"):
        assert part in message


def test_an_id_that_looks_like_a_prefixed_one():
    with pytest.raises(UserError, match="'a:1' is used twice in the merged pool"):
        unique_ids({"a": as_column(["1", "a:1"]), "b": as_column(["1"])})


@pytest.mark.parametrize("identifier", [1.5, True, "", ["x"]])
def test_what_is_no_id(identifier):
    message = error(source("p", [row(id=identifier)]))
    assert message.startswith("p:1: id " + repr(identifier))


def test_sources_need_different_names():
    assert "['p', 'p']" in error(source("p", [row()]), source("p", [row()]))
    assert "different names" in error()


def test_other_columns_are_kept_but_for_the_names_of_later_stages():
    rows = [
        row(
            n=1,
            x=1,
            ok=True,
            note=None,
            never=None,
            tags=["a"],
            evol_score=3.5,
            embedding=[0.5],
            complexity_scores=[1.0],
        ),
        row(n=2, x=2.5, ok=None, note="hm", never=None, tags=None, evol_score=None, selection_rank=4, blocked_by="x"),
        row(n=3, x=None, quality_scores=None, label={"a": 1}),
    ]
    pool, report = build_pool([source("p", rows)])
    assert pool["n"][:] == [1, 2, 3]
    assert pool["x"][:] == [1.0, 2.5, None]
    assert pool["ok"][:] == [True, None, None]
    assert pool["note"][:] == [None, "hm", None]
    assert pool["never"][:] == [None, None, None]
    assert pool["evol_score"][:] == [3.5, None, None]
    assert pool["selection_rank"][:] == [None, 4, None]
    assert pool["blocked_by"][:] == [None, "x", None]
    assert pool.features["x"].dtype == "float64"
    assert pool.features["n"].dtype == "int64"
    assert pool["tags"][:] == [["a"], None, None]
    assert pool["label"][:] == [None, None, {"a": 1}]
    assert report.json_columns == {"label": "lists or objects (first at p:3)"}
    assert report.columns_left_out == ["complexity_scores", "embedding", "quality_scores"]
    assert not set(report.columns_left_out) & set(pool.column_names)


def test_lists_of_texts_are_kept_over_chunks():
    rows = [row(str(i), tags=[] if i % 3 else [f"t{i}", "é"]) for i in range(1500)]
    rows[1200] = row("1200", tags=None)
    pool, report = build_pool([source("p", rows)])
    assert pool["tags"][:] == [None if i == 1200 else [] if i % 3 else [f"t{i}", "é"] for i in range(1500)]
    assert pool.features["tags"] == datasets.List(datasets.Value("string"))
    assert report.columns_left_out == []


@pytest.mark.parametrize("other", ["a, b", 3, [1], ["a", None], {"a": 1}, [["a"]]])
@pytest.mark.parametrize("at", [0, 1100])
def test_a_column_of_lists_and_something_else_is_kept_as_json(other, at):
    rows = [row(str(i), tags=["a"]) for i in range(1101)]
    rows[at] = row("other", tags=other)
    pool, report = build_pool([source("p", rows)])
    assert pool.features["tags"] == datasets.Json()
    assert pool["tags"][:] == [other if place == at else ["a"] for place in range(1101)]
    assert (list(report.json_columns), report.columns_left_out) == (["tags"], [])


@pytest.mark.parametrize("tags", [["a", "\ud800"], [{"x": "\ud800"}], "\ud800"])
@pytest.mark.parametrize("column", ["tags", "source"])
def test_a_lone_surrogate_drops_its_row(tags, column):
    pool, report = build_pool([source("p", [row(**{column: tags}), row(**{column: None})])])
    assert report.drops == {"not_text": 1}
    assert report.examples["not_text"] == [f"p:1: column '{column}' holds a lone surrogate, which is not Unicode text"]
    assert pool["id"][:] == ["p:1"]


def test_a_lone_surrogate_in_a_name_drops_its_row_and_the_report_is_unicode():
    fields = {"messages": [TURNS[0] | {"\ud800f": 1}, TURNS[1]]}
    speaker = {"messages": [{"role": "\ud800x", "content": "q"}, TURNS[1]]}
    pool, report = build_pool([source("p", [row(), row() | {"\ud800c": 1}, fields, speaker])])
    assert (pool["id"][:], report.drops) == (["p:0"], {"not_text": 2, "unknown_role": 1})
    assert report.unknown_roles == {r"'\ud800x'": 1}
    assert report.examples["not_text"] == [
        r"p:2: the name of column '\ud800c' holds a lone surrogate, which is not Unicode text",
        r"p:3: the name of field '\ud800f' of message 1 holds a lone surrogate, which is not Unicode text",
    ]
    json.dumps(report.as_dict(), ensure_ascii=False).encode()


def test_a_source_column_that_is_no_string_is_replaced_and_listed():
    pool, report = build_pool([source("p", [row(source=3), row(source="s")])])
    assert pool["source"][:] == ["p", "s"]
    assert report.columns_left_out == ["source"]


def test_columns_settle_over_chunks_of_a_thousand_rows():
    rows = [row(str(i), late=None, wide=i, gone=i) for i in range(2500)]
    rows[2100] = row("2100", late="here", wide=0.5, gone=[1], new=True)
    pool, report = build_pool([source("p", rows)])
    assert pool["late"][:] == [None] * 2100 + ["here"] + [None] * 399
    assert pool["wide"][:] == [*map(float, range(2100)), 0.5, *map(float, range(2101, 2500))]
    assert pool["new"][:] == [None] * 2100 + [True] + [None] * 399
    assert [turns[0]["content"] for turns in pool["messages"]] == [str(i) for i in range(2500)]
    assert pool["gone"][:] == [*range(2100), [1], *range(2101, 2500)]
    assert report.json_columns == {"gone": "lists or objects (first at p:2101)"}


def exactly(values):
    return [(type(value), value) for value in values]


@pytest.mark.parametrize(
    ("early", "late"), [(1, "1"), (True, 1), ("a", 0.7), (1.5, False), ("5", ["5"]), ([0.7], ["a"]), ([], [0.7])]
)
@pytest.mark.parametrize("between", [0, 1000])
def test_a_column_that_changes_its_type_is_kept_as_json(early, late, between):
    rows = [row(c=None), row(c=early), *[row(c=None)] * between]
    pool, report = build_pool([source("p", rows), source("r", [row(c=late)])])
    assert pool.features["c"] == datasets.Json()
    assert exactly(pool["c"]) == exactly([None, early, *[None] * between, late])
    reason = report.json_columns["c"]
    for part in ("values of several types", "p:2", "r:1"):
        assert part in reason
    assert report.rows_out == between + 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 2**63], "numbers beyond 64 bits (first at p:2)"),
        ([2**63, "x"], "numbers beyond 64 bits (first at p:1)"),
        ([2**53 + 1, 0.5], "fractions, and whole numbers too large for float64"),
        ([*[2**53 + 1] * 1000, 0.5], "fractions, and whole numbers too large for float64"),
        ([0.5, *[None] * 1000, 2**53 + 1], "fractions, and whole numbers too large for float64"),
    ],
)
def test_numbers_that_no_type_holds_exactly(values, reason):
    pool, report = build_pool([source("p", [row(c=value) for value in values])])
    assert exactly(pool["c"]) == exactly(values)
    assert report.json_columns == {"c": reason}


def test_numbers_beyond_what_datasets_reads_become_text():
    pool, _ = build_pool([source("p", [row(c=2**64), row(c=[-(2**63) - 1, 5])])])
    assert pool["c"][:] == [str(2**64), [str(-(2**63) - 1), 5]]


def test_lists_of_fractions_have_a_type():
    pool, report = build_pool([source("p", [row(c=[0.7, 1.0]), row(c=[]), row(c=None)])])
    assert pool.features["c"] == datasets.List(datasets.Value("float64"))
    assert (pool["c"][:], report.json_columns) == ([[0.7, 1.0], [], None], {})


def test_dates_are_kept_as_text_and_bytes_are_left_out():
    day = datetime.date(2024, 2, 29)
    rows = [row(day=day, image=None), row(day=None, image={"bytes": b"x"}), row(day=day, image=5)]
    pool, report = build_pool([source("p", rows)])
    assert pool["day"][:] == ["2024-02-29", None, "2024-02-29"]
    assert report.json_columns == {"day": "values of the type date (first at p:1)"}
    assert (report.columns_left_out, "image" in pool.column_names) == (["image"], False)


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0.5, 0.7, "5", "x", ""])
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2)


@settings(deadline=None, max_examples=60)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_whatever_a_column_holds_it_stays(values):
    pool, report = build_pool([source("p", [row(c=value) for value in values])])
    assert pool["c"][:] == values
    assert report.columns_left_out == []


def test_columns_that_the_format_used_are_not_kept():
    rows = [{"instruction": "q", "input": "i", "output": "a", "text": "t", "messages": "m"}]
    pool, report = build_pool([source("p", rows, format="alpaca")])
    assert pool.column_names == ["id", "messages", "source", "text"]
    assert pool["messages"][0] == [{"role": "user", "content": "q\n\ni"}, TURNS[1]]
    assert report.columns_left_out == ["messages"]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"temperature": 0.7, "x": None}}}
RICH = [
    {"role": "user", "content": "q", "name": "Bo"},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 0},
    {"role": "tool", "content": "1", "tool_call_id": "c"},
    {"role": "assistant", "content": "a", "reasoning_content": "r", "score": 0.3},
]


def test_plain_messages_keep_their_type():
    pool, report = build_pool([source("p", [row(tools=None), row()])])
    assert pool.data.schema.field("messages").type == MESSAGES_TYPE
    assert pool.column_names == ["id", "messages", "source"]
    assert (report.message_fields, report.json_columns) == ({}, {})


@pytest.mark.parametrize("at", [0, 1100])
def test_messages_with_further_fields_are_json(at):
    rows = [row(str(i)) for i in range(1101)]
    rows[at] = {"messages": RICH, "tools": json.dumps([{"name": "f"}])}
    pool, report = build_pool([source("p", rows)])
    assert pool.features["messages"] == datasets.List(datasets.Json())
    assert pool.features["tools"] == datasets.Json()
    assert pool["messages"][:] == [r["messages"] for r in rows]
    assert pool["tools"][:] == [[{"name": "f"}] if place == at else None for place in range(1101)]
    assert report.message_fields == {"score": 1}
    assert (report.json_columns, report.columns_left_out) == ({}, [])


def test_messages_survive_the_disk_and_parquet(tmp_path):
    pool, _ = build_pool([source("p", [{"messages": RICH, "c": 1}, row(c="x"), row(c={"a": 0.7})])])
    pool.save_to_disk(tmp_path / "pool")
    pool.to_parquet(tmp_path / "pool.parquet")
    again = datasets.Dataset.from_parquet(str(tmp_path / "pool.parquet"), cache_dir=str(tmp_path / "cache"))
    for read in (datasets.load_from_disk(tmp_path / "pool"), again):
        assert read.to_list() == pool.to_list()
        assert read.features == pool.features
    assert pool["messages"][0] == RICH


def test_a_system_message_that_stays_beside_another():
    rows = [
        row(system="s"),
        row(system=None),
        {"messages": [{"role": "system", "content": "own"}, *TURNS], "system": "s"},
    ]
    pool, report = build_pool([source("p", rows)])
    assert [turns[0]["content"] for turns in pool["messages"]] == ["s", "q", "own"]
    assert pool["system"][:] == [None, None, "s"]
    assert report.columns_kept_aside == {"system": 1}


def test_system_messages_left_out_are_counted():
    emptied = {"messages": [{"role": "system", "content": ""}, *TURNS]}
    pool, report = build_pool([source("p", [emptied, emptied, row()])])
    assert pool["messages"][:] == [TURNS] * 3
    assert report.system_messages_left_out == 2


def test_sources_of_different_formats_and_columns():
    alpaca = source("a", [{"instruction": "q", "output": "a", "n": 1}])
    chat = source("b", [{"prompt": "kept here", "messages": TURNS, "m": "x"}])
    pool, report = build_pool([alpaca, chat])
    assert report.formats == {"a": "alpaca", "b": "messages"}
    assert pool["messages"][:] == [TURNS, TURNS]
    assert (pool["n"][:], pool["m"][:], pool["prompt"][:]) == ([1, None], [None, "x"], [None, "kept here"])


def test_the_format_is_settled_by_the_first_rows_or_stated():
    rows = [{"instruction": "q", "output": "a", "messages": TURNS}, {"instruction": "q", "output": "a"}]
    assert build_pool([source("p", rows)])[1].drops == {"missing_conversation": 1}
    assert build_pool([source("p", rows, format="alpaca")])[1].drops == {}
    late, report = build_pool([source("p", [{"instruction": "unanswered"}, rows[1]])])
    assert (late["id"][:], report.formats) == (["p:1"], {"p": "alpaca"})
    detail = "p:1: column 'output' is absent; the row has 'instruction'"
    assert report.examples == {"missing_conversation": [detail]}
    assert error(source("p", [{"text": "x"}])).startswith("p:1: the columns 'text' fit no known format")
    with pytest.raises(UserError, match="format 'chatml' is unknown"):
        source("p", rows, format="chatml")
    with pytest.raises(UserError, match="'x' is mapped to 'y'"):
        source("p", rows, roles={"x": "y"})


def test_drops_are_counted_with_the_first_five_examples():
    tool = {"messages": [{"role": "critic", "content": "x"}, {"role": "critic", "content": "y"}, {"role": "judge"}]}
    rows = [row()] + [{"messages": []}] * 7 + [tool, tool, row(id="z")]
    _, report = build_pool([source("p", rows)])
    assert report.drops == {"missing_conversation": 7, "unknown_role": 2}
    assert report.examples["missing_conversation"] == [
        f"p:{i}: column 'messages' is an empty list" for i in range(2, 7)
    ]
    assert report.unknown_roles == {"critic": 2, "judge": 2}
    assert (report.rows_in, report.rows_out) == (11, 2)
    assert json.loads(json.dumps(report.as_dict()))["drops"] == report.drops


def test_roles_belong_to_their_source():
    turns = [{"role": "asker", "content": "q"}, {"role": "assistant", "content": "a"}]
    known = source("a", [{"messages": turns}], roles={"Asker": "user"})
    pool, report = build_pool([known, source("b", [{"messages": turns}])])
    assert pool["id"][:] == ["a:0"]
    assert report.unknown_roles == {"asker": 1}


def test_nothing_usable():
    message = error(source("p", [{"messages": []}, {"messages": TURNS[:1]}, {"messages": TURNS[:1]}]))
    for part in ("none of the 3 rows of p", "no_assistant_turn: 2, first p:2", "missing_conversation: 1, first p:1"):
        assert part in message


def test_mean_user_turns():
    turns = [*TURNS, *TURNS, {"role": "user", "content": "r"}]
    assert build_pool([source("p", [row(), {"messages": turns}])])[1].mean_user_turns == 2.0


def test_instruction_shares_part_the_rows():
    rows = [row(f"question {i % 40}", answer=i) for i in range(120)]
    low, low_report = build_pool([source("p", rows, instruction_share=(0, 0.3))])
    high, high_report = build_pool([source("p", rows, instruction_share=(0.3, 1))])
    asked_low, asked_high = ({turns[0]["content"] for turns in part["messages"]} for part in (low, high))
    assert sorted([*low["answer"], *high["answer"]]) == list(range(120))
    assert not asked_low & asked_high
    assert 0 < len(asked_low) < len(asked_high)
    assert (low_report.rows_in, low_report.rows_outside_share) == (len(low), 120 - len(low))
    assert (high_report.rows_in, high_report.rows_outside_share) == (len(high), 120 - len(high))
    assert low["id"][:] == [f"p:{answer}" for answer in low["answer"]]


@pytest.mark.parametrize("share", [(0.5, 0.5), (-0.1, 1), (0, 1.1), (0.6, 0.4)])
def test_an_instruction_share_is_checked(share):
    with pytest.raises(UserError, match="instruction_share"):
        source("p", [row()], instruction_share=share)


def test_equal_pools_have_equal_fingerprints_and_survive_the_disk(tmp_path):
    rows = [row(str(i), n=i, x=None) for i in range(1200)]
    pool, again = (build_pool([source("p", rows)])[0] for _ in range(2))
    other = build_pool([source("p", [*rows[:-1], row("1199!", n=1199, x=None)])])[0]
    assert pool._fingerprint == again._fingerprint != other._fingerprint
    pool.save_to_disk(tmp_path / "pool")
    saved = PoolSource.from_dataset(str(tmp_path / "pool"))
    assert saved.name == "pool"
    assert build_pool([saved])[0].to_list() == pool.to_list()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: text.strip() != ""
)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(PAIRS.flatmap(lambda pairs: st.permutations(list(enumerate(pairs)))))
def test_any_order_of_well_formed_rows_keeps_every_text(order):
    rows = [
        {"id": i, "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for i, (q, a) in order
    ]
    pool, report = build_pool([source("p", rows)])
    assert report.rows_in == report.rows_out == len(order)
    assert [(r["id"], *(turn["content"] for turn in r["messages"])) for r in pool] == [
        (str(i), q, a) for i, (q, a) in order
    ]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", " ", "x", "\ud800", "[1]", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "type", "text"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = ("role", "from", "content", "value", "tool_calls", "function_call", "weight", "thinking", "own", "\ud800")
SPEAKERS = ("\ud800", "user", "assistant", "tool", "system", "function_call", "observation", "gpt", "human")
MESSAGES = st.lists(
    ANYTHING
    | st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4)
    | st.fixed_dictionaries(
        {"role": st.sampled_from(SPEAKERS), "content": ANYTHING},
        optional={name: ANYTHING for name in ("tool_calls", "weight", "thinking", "function_call", "own")},
    ),
    max_size=4,
)
COLUMNS = ("conversations", "messages", "instruction", "input", "output", "prompt", "completion", "history", "system")


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(FORMATS),
    st.lists(
        st.dictionaries(st.sampled_from((*COLUMNS, "tools", "source", "own", "\ud800")), ANYTHING | MESSAGES),
        max_size=3,
    ),
)
def test_no_row_stops_a_run_and_what_is_kept_can_be_read(format, rows):
    good = {"conversations": TURNS, "messages": TURNS, "instruction": "q", "input": "", "output": "a", "prompt": "q"}
    good |= {"completion": "a", "response": "a", "question": "q", "answer": "a", "query": "q", "context": None}
    read = [good, *({**good, **row} for row in rows)]
    pool, report = build_pool([source("p", read, format=format)])
    assert report.rows_in == len(read) == report.rows_out + sum(report.drops.values())
    assert len(pool.to_list()) == report.rows_out >= 1
    json.dumps(report.as_dict(), ensure_ascii=False).encode()
    for messages in pool["messages"]:
        for message in messages:
            assert message["role"] in ("system", "user", "assistant", "tool")
            assert isinstance(message["content"], str) and None not in message.values()
            assert isinstance(message_text(message), str)
        assert isinstance(conversation_as_text(messages), list)
    again, report = build_pool([source("p", pool.to_list())])
    assert (again["messages"][:], report.drops) == (pool["messages"][:], {})
    assert [row.get("tools") for row in again] == [row.get("tools") for row in pool]


def test_rows_whose_fields_are_empty_make_the_same_table_as_rows_without_them():
    empty = {"tool_calls": [], "reasoning_content": "", "weight": None, "function_call": None, "name": ""}
    filled, report = build_pool([source("p", [{"messages": [turn | empty for turn in TURNS], "tools": []}])])
    plain, _ = build_pool([source("p", [{"messages": TURNS}])])
    assert filled.to_list() == plain.to_list() and filled.features == plain.features
    assert (report.message_fields, report.json_columns) == ({}, {})


@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_is_read_again_with_the_same_messages_whatever_columns_its_rows_had(format):
    columns = {name for names in FORMAT_COLUMNS.values() for name in names} | {"chosen", "rejected"}
    rows = [{name: f"{name} of {i}" for name in columns} for i in range(2)]
    for i, row in enumerate(rows):
        row["conversations"] = [{"from": "human", "value": f"old {i}"}, {"from": "gpt", "value": "old"}]
        row["messages"] = [{"role": "user", "content": f"new {i}"}, {"role": "assistant", "content": "new"}]
    pool, _ = build_pool([source("p", rows, format=format)])
    again, report = build_pool([source("p", pool.to_list())])
    assert report.formats == {"p": "messages"}
    assert again["messages"][:] == pool["messages"][:]
    assert set(again.column_names) == set(pool.column_names)


REAL_FILES = [
    # file, format, rows in, rows out, drops, user turns of the rows out, columns kept, columns left out
    ("real_pool_sharegpt.jsonl", "sharegpt", 9658, 9658, {}, 9658, ["generator", "win_probability"], []),
    ("real_alpaca.json", "alpaca", 999, 999, {}, 999, [], []),
    ("real_messages_multiturn.json", "messages", 300, 300, {}, 487, ["label"], []),
    ("real_sharegpt_multiturn_identity.json", "sharegpt", 500, 500, {}, 1000, [], []),
    (
        "real_preferences_sharegpt.json",
        "sharegpt",
        300,
        106,
        {"no_assistant_turn": 194},
        369,
        ["chosen", "rejected"],
        [],
    ),
    (
        "real_preferences.jsonl",
        "messages",
        510,
        510,
        {},
        510,
        ["prompt", "chosen", "rejected", "score_chosen", "score_rejected"],
        [],
    ),
]


def real_file(name):
    folder = os.environ.get("DEITA_SHARED")
    path = Path(folder or "unset", "data", name)
    if not path.is_file():
        pytest.skip(f"DEITA_SHARED holds no data/{name}")
    return path


@pytest.mark.parametrize(("name", "format", "rows_in", "rows_out", "drops", "turns", "kept", "left_out"), REAL_FILES)
def test_real_files(name, format, rows_in, rows_out, drops, turns, kept, left_out):
    path = real_file(name)
    pool, report = build_pool([PoolSource.from_dataset(str(path))])
    assert (report.rows_in, report.rows_out, report.drops) == (rows_in, rows_out, drops)
    assert report.formats == {path.name.split(".")[0]: format}
    assert report.mean_user_turns == turns / rows_out
    assert pool.column_names == ["id", "messages", "source", *kept]
    assert report.columns_left_out == left_out
    content = path.read_text(encoding="utf-8")
    raw = json.loads(content) if path.suffix == ".json" else [json.loads(line) for line in content.split("\n") if line]
    texts = Counter(text for line in raw for text in raw_texts(line))
    assert Counter(turn["content"] for turns_ in pool["messages"] for turn in turns_) <= texts
    assert len(pool) == rows_out == len(set(pool["id"]))


def raw_texts(line):
    if "instruction" in line:
        return [line["instruction"] + ("\n\n" + line["input"] if line["input"] else ""), line["output"]]
    return [turn.get("value", turn.get("content")) for turn in line.get("conversations", line.get("messages"))]


def test_real_files_merged_and_split_by_instruction():
    names = ["real_pool_sharegpt.jsonl", "real_alpaca.json", "real_messages_multiturn.json"]
    pool, report = build_pool([PoolSource.from_dataset(str(real_file(name))) for name in names])
    assert report.rows_out == 9658 + 999 + 300
    assert isinstance(pool, datasets.Dataset)
    path = str(real_file(names[0]))
    parts = [build_pool([PoolSource.from_dataset(path, instruction_share=s)])[0] for s in ((0, 0.5), (0.5, 1))]
    asked = [{turns[0]["content"] for turns in part["messages"]} for part in parts]
    assert sum(map(len, parts)) == 9658
    assert len(asked[0]) + len(asked[1]) == len(asked[0] | asked[1]) == 805


@pytest.mark.parametrize("most", [0, 300_000])
def test_a_pool_on_disk_is_the_pool_in_memory(tmp_path, monkeypatch, most):
    """Types that widen late, messages that get fields late, and optional columns are cast from mapped files too."""

    def rows():
        for number in range(4500):
            message = {"role": "user", "content": f"question {number}"}
            answer = {"role": "assistant", "content": "x" * (number % 40)}
            if number == 3100:
                answer["reasoning_content"] = "because"
            late = {"score": 0.5 if number > 2000 else 1, "extra": {"a": 1}} if number > 500 else {"score": 3}
            yield SourceRow(number, f"row {number}", {"messages": [message, answer], **late})

    def pool():
        return build_pool([PoolSource("p", rows())])

    in_memory, report = pool()
    monkeypatch.setattr(row_table, "_MOST_IN_MEMORY", most)
    before = pa.total_allocated_bytes()
    on_disk, same_report = pool()
    assert on_disk.data.schema == in_memory.data.schema and on_disk.to_list() == in_memory.to_list()
    assert report == same_report
    assert pa.total_allocated_bytes() - before < in_memory.data.nbytes
    assert not list(tmp_path.iterdir())

import json
from collections import Counter
from itertools import pairwise
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assistant, system, tool, user

from deita_train.data.conversations import DEFAULT_ROLES, UnusableRow
from deita_train.data.intake import instruction_fraction
from deita_train.data.pairs import (
    PAIR_DROP_REASONS,
    PAIR_FORMAT_COLUMNS,
    PAIR_FORMATS,
    PreferencePair,
    detect_pair_format,
    to_pair,
)
from deita_train.data.preferences import PreferenceSource, build_preferences
from deita_train.data.row_table import MESSAGES_TYPE
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError


def said(speaker, text):
    return {"from": speaker, "value": text}


def pair_row(prompt="q", chosen="good", rejected="bad", **columns):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}


def chats(chosen, rejected, **columns):
    return {"chosen": chosen, "rejected": rejected, **columns}


def turns(conversations, chosen=None, rejected=None, **columns):
    answers = {"chosen": chosen or said("gpt", "good"), "rejected": rejected or said("gpt", "bad")}
    return {"conversations": conversations, **answers, **columns}


def source(rows, name="p", **kwargs):
    return PreferenceSource(name, [SourceRow(i, f"{name}:{i + 1}", row) for i, row in enumerate(rows)], **kwargs)


def error(rows, sample=None, seed=None, **kwargs):
    with pytest.raises(UserError) as caught:
        build_preferences(source(rows, **kwargs), sample, seed)
    return str(caught.value)


LONG_PROMPT = [system("s"), user("q"), assistant("a"), user("r")]
SHAREGPT_PROMPT = [said("system", "s"), said("human", "q"), said("gpt", "a"), said("human", "r")]


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("ultrafeedback", chats([*LONG_PROMPT, assistant("good")], [*LONG_PROMPT, assistant("bad")])),
        ("sharegpt_pairs", turns(SHAREGPT_PROMPT)),
        ("sharegpt_pairs", turns(SHAREGPT_PROMPT, assistant("good"), {"role": "GPT", "content": "bad"})),
        ("prompt_pairs", pair_row(LONG_PROMPT)),
        ("prompt_pairs", pair_row(LONG_PROMPT, [assistant("good")], [assistant("bad")])),
        ("prompt_pairs", pair_row(LONG_PROMPT[1:], system="s")),
        ("sharegpt_pairs", turns(SHAREGPT_PROMPT[1:], system_prompt="s")),
        (
            "ultrafeedback",
            chats([*LONG_PROMPT[1:], assistant("good")], [*LONG_PROMPT[1:], assistant("bad")], system="s"),
        ),
        (
            "question_pairs",
            {"question": "r", "chosen": "good", "rejected": "bad", "system": "s", "history": [["q", "a"]]},
        ),
        (
            "instruction_pairs",
            {
                "instruction": "r",
                "input": "",
                "chosen": "good",
                "rejected": "bad",
                "system": "s",
                "history": [["q", "a"]],
            },
        ),
        (
            "transcript_pairs",
            chats(
                "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: good",
                "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: bad",
                system="s",
            ),
        ),
        ("prompt_pairs", pair_row("\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:", system="s")),
    ],
)
def test_every_format_says_the_same(format, row):
    assert detect_pair_format(row) == format
    assert to_pair(row, format) == PreferencePair(LONG_PROMPT, "good", "bad")


def test_a_prompt_that_is_a_string_is_the_users():
    assert to_pair(pair_row(" q "), "prompt_pairs") == PreferencePair([user(" q ")], "good", "bad")


def test_an_input_follows_the_instruction():
    row = {"instruction": "Do", "input": "x", "chosen": "good", "rejected": "bad"}
    assert to_pair(row, "instruction_pairs").prompt == [user("Do\n\nx")]


CALLS = [{"type": "function", "function": {"name": "f", "arguments": {"x": 0.7}}}]
THOUGHT = {"reasoning_content": "r"}
CALLED = {"tool_calls": CALLS}


def test_fields_of_the_prompt_and_of_the_answers_are_kept():
    prompt = [user("q") | {"name": "Bo"}, assistant("") | CALLED, tool("1")]
    whole = chats([*prompt, assistant("good") | THOUGHT], [*prompt, assistant("") | CALLED], tools='[{"name": "f"}]')
    expected = PreferencePair(prompt, "good", "", THOUGHT, CALLED, [{"name": "f"}])
    assert to_pair(whole, "ultrafeedback") == expected
    alone = pair_row(prompt, [assistant("good") | THOUGHT], assistant(None) | CALLED, tools=[{"name": "f"}])
    assert to_pair(alone, "prompt_pairs") == expected


def test_pairs_with_fields_are_read_again_as_they_were_written():
    rows = [
        pair_row([user("q"), assistant("") | CALLED, tool("1")], assistant("good") | THOUGHT, tools=[{"name": "f"}]),
        pair_row(rejected=[assistant("") | CALLED]),
        pair_row(c={"a": 0.7}),
    ]
    pairs, report = build_preferences(source(rows))
    assert pairs["chosen_fields"][:] == [THOUGHT, None, None]
    assert pairs["rejected_fields"][:] == [None, CALLED, None]
    assert pairs["tools"][:] == [[{"name": "f"}], None, None]
    assert pairs["prompt"][:] == [rows[0]["prompt"], [user("q")], [user("q")]]
    again, report_again = build_preferences(source(pairs.to_list()))
    assert again.to_list() == pairs.to_list()
    assert again.features == pairs.features
    assert (report.columns_left_out, report_again.columns_left_out) == ([], [])


@pytest.mark.parametrize("format", PAIR_FORMATS)
def test_pairs_are_read_again_whatever_columns_their_rows_had(format):
    row = {name: f"own {name}" for names in PAIR_FORMAT_COLUMNS.values() for name in names}
    row |= {"conversations": [said("human", "old")], "messages": [user("older"), assistant("a")]}
    if format == "ultrafeedback":
        row |= chats([*LONG_PROMPT, GOOD], [*LONG_PROMPT, BAD])
    elif format == "transcript_pairs":
        row |= chats("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad")
    pairs, _ = build_preferences(source([row], format=format))
    again, report = build_preferences(source(pairs.to_list()))
    assert report.format == "prompt_pairs"
    assert again.to_list() == pairs.to_list()


def test_plain_pairs_keep_their_types():
    pairs, _ = build_preferences(source([pair_row(), pair_row(tools=None, chosen_fields=None)]))
    assert pairs.column_names == ["id", "prompt", "chosen", "rejected", "source"]
    assert pairs.data.schema.field("prompt").type == MESSAGES_TYPE


def test_answers_that_say_the_same_are_equal_whatever_else_they_have():
    for fields, equal in [({"score": 1}, True), ({"weight": 0}, True), (THOUGHT, False), (CALLED, False)]:
        row = pair_row(chosen=[assistant("same") | fields], rejected=[assistant("same")])
        _, report = build_preferences(source([pair_row(), row]))
        assert report.drops == ({"answers_equal": 1} if equal else {})


def test_empty_calls_and_reasoning_are_no_difference():
    empty = {"tool_calls": [], "reasoning_content": ""}
    with pytest.raises(UnusableRow) as caught:
        to_pair(chats([user("q"), GOOD | empty], [user("q"), GOOD]), "ultrafeedback")
    assert caught.value.reason == "answers_equal"
    pair = to_pair(chats([user("q") | empty, GOOD | empty], [user("q"), BAD]), "ultrafeedback")
    assert (pair.prompt, pair.chosen_fields, pair.rejected_fields) == ([user("q")], None, None)


def test_prompts_that_say_the_same_are_equal_whatever_else_they_have():
    for fields, equal in [({"id": 1}, True), ({"weight": 0}, True), (CALLED, False), (THOUGHT, False)]:
        row = chats([user("p"), GOOD | fields, user("q"), GOOD], [user("p"), GOOD, user("q"), BAD])
        _, report = build_preferences(source([chats([user("q"), GOOD], [user("q"), BAD]), row]))
        assert report.drops == ({} if equal else {"prompts_differ": 1})


def test_what_the_messages_and_columns_hold_is_counted():
    emptied = pair_row([system(""), user("q") | {"id": 3}], assistant("good") | {"score": 1}, system="s")
    own = pair_row([system("own"), user("q")], system="s")
    pairs, report = build_preferences(source([emptied, own]))
    assert pairs["prompt"][:] == [[system("s"), user("q") | {"id": 3}], [system("own"), user("q")]]
    assert report.message_fields == {"id": 1, "score": 1}
    assert (report.system_messages_left_out, report.columns_kept_aside) == (1, {"system": 1})


@pytest.mark.parametrize("columns", [{}, {"prompt": "q"}, {"prompt": "another"}, {"prompt": None}, {"prompt": 7}])
def test_the_prompt_column_of_ultrafeedback_does_not_decide(columns):
    row = chats([user("q"), assistant("good")], [user("q"), assistant("bad")], **columns)
    assert detect_pair_format(row) == "ultrafeedback"
    assert to_pair(row, "ultrafeedback") == PreferencePair([user("q")], "good", "bad")


@pytest.mark.parametrize("leading", [[system("s")], [said("system", "s")], [system(" "), said("developer", "s")]])
def test_a_system_message_in_the_prompt_of_ultrafeedback_alone_is_read(leading):
    row = chats([user("q"), GOOD], [user("q"), BAD], prompt=[*leading, user("q")])
    assert to_pair(row, detect_pair_format(row)).prompt == [system("s"), user("q")]
    assert build_preferences(source([row]))[1].system_messages_left_out == len(leading) - 1
    beside = to_pair({**row, "system": "other"}, "ultrafeedback")
    assert beside.prompt == [system("s"), user("q")]


def test_the_conversations_system_message_counts_before_the_prompts():
    row = chats([system("own"), user("q"), GOOD], [system("own"), user("q"), BAD], prompt=[system("s"), user("q")])
    assert to_pair(row, "ultrafeedback").prompt == [system("own"), user("q")]
    for prompt in ("q", [user("q")], [None], []):
        row = chats([user("q"), GOOD], [user("q"), BAD], prompt=prompt)
        assert to_pair(row, "ultrafeedback").prompt == [user("q")]


def test_names_of_speakers_are_no_difference_between_prompts():
    row = chats([user("q"), assistant("good")], [said("human", "q"), said("gpt", "bad")])
    assert to_pair(row, "ultrafeedback") == PreferencePair([user("q")], "good", "bad")


def test_a_prompt_may_start_with_the_assistant():
    prompt = [assistant("Hello!"), user("q")]
    assert to_pair(pair_row(prompt), "prompt_pairs").prompt == prompt


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"chosen": "a", "prompt": "q"},
        {},
        {"chosen": "secret", "rejected": "hidden"},
    ],
)
def test_no_format_lists_the_columns(row):
    with pytest.raises(UserError) as caught:
        detect_pair_format(row)
    for part in (*map(repr, row), *PAIR_FORMATS, "Human: and Assistant:"):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_format():
    for attempt in (lambda: to_pair({}, "sharegpt"), lambda: source([], format="sharegpt")):
        with pytest.raises(UserError, match=r"'sharegpt' is unknown.*ultrafeedback, sharegpt_pairs"):
            attempt()


GOOD, BAD = assistant("good"), assistant("bad")
UNUSABLE = [
    ("missing_conversation", "prompt_pairs", pair_row(None), "column 'prompt' is null"),
    ("missing_conversation", "prompt_pairs", {"prompt": "q", "chosen": "a"}, "column 'rejected' is absent"),
    ("missing_conversation", "prompt_pairs", pair_row([]), "column 'prompt' is an empty list"),
    ("missing_conversation", "prompt_pairs", pair_row(rejected=["bad"]), "column 'rejected', message 1 is str"),
    ("missing_conversation", "sharegpt_pairs", turns("q"), "column 'conversations' is str, not a list"),
    ("missing_conversation", "ultrafeedback", chats("good", "bad"), "column 'chosen' is str, not a list"),
    ("unknown_role", "sharegpt_pairs", turns([said("judge", "q")]), "'conversations', message 1 has the role 'judge'"),
    (
        "unknown_role",
        "sharegpt_pairs",
        turns([said("human", "q")], {"value": "good"}),
        "'chosen', message 1 has the role None",
    ),
    ("not_text", "prompt_pairs", pair_row({"text": "q"}), "column 'prompt', message 1 holds dict"),
    ("not_text", "prompt_pairs", pair_row(rejected=3), "column 'rejected', message 1 holds int"),
    ("not_text", "prompt_pairs", pair_row(chosen="x \ud83d"), "column 'chosen', message 1 holds a lone surrogate"),
    ("not_text", "ultrafeedback", chats([user("q"), GOOD], [user("q"), assistant(None)]), "'rejected', message 2"),
    ("empty_message", "prompt_pairs", pair_row(chosen=" \n"), "column 'chosen', message 1 (assistant) is ' \\n'"),
    ("empty_message", "ultrafeedback", chats([user("q"), GOOD], [user("q"), assistant("")]), "'rejected', message 2"),
    (
        "answer_not_assistant",
        "sharegpt_pairs",
        turns([said("human", "q")], said("human", "x")),
        "'chosen' is by the role",
    ),
    ("answer_not_assistant", "ultrafeedback", chats([user("q"), GOOD], [user("q")]), "'rejected' is by the role user"),
    ("several_answers", "prompt_pairs", pair_row(chosen=[user("q"), GOOD]), "column 'chosen' holds 2 messages"),
    (
        "prompts_differ",
        "ultrafeedback",
        chats([user("q"), GOOD, user("r"), GOOD], [user("q"), GOOD, user("s"), BAD]),
        "differ in message 3",
    ),
    (
        "prompts_differ",
        "ultrafeedback",
        chats([user("q"), GOOD], [system("s"), user("q"), BAD]),
        "chosen has 1 messages before its answer, rejected 2",
    ),
    ("prompt_ends_with_answer", "prompt_pairs", pair_row([user("q"), GOOD]), "user, assistant"),
    (
        "prompt_ends_with_answer",
        "ultrafeedback",
        chats([user("q"), GOOD, GOOD], [user("q"), GOOD, BAD]),
        "user, assistant",
    ),
    (
        "missing_conversation",
        "transcript_pairs",
        chats("\n\nHuman: q\n\nAssistant: a", "a"),
        "does not begin with Human:",
    ),
    ("missing_conversation", "transcript_pairs", chats([GOOD], "\n\nHuman: q"), "column 'chosen' is list, not a"),
    ("empty_message", "transcript_pairs", chats("Human: q\n\nAssistant:", "Human: q\n\nAssistant: a"), "message 2"),
    ("answer_not_assistant", "transcript_pairs", chats("Human: q", "Human: q\n\nAssistant: a"), "the role user"),
    (
        "bad_tool_calls",
        "prompt_pairs",
        pair_row(chosen=assistant("a") | {"tool_calls": "f"}),
        "column 'chosen', message 1",
    ),
    ("bad_weight", "prompt_pairs", pair_row([user("q") | {"weight": "0"}]), "column 'prompt', message 1 has a weight"),
    ("tool_result_without_call", "prompt_pairs", pair_row([user("q"), tool("x")]), "message 2 is a tool's"),
    ("bad_tools", "prompt_pairs", pair_row(tools="a hammer"), "column 'tools' is text, but not JSON"),
    ("answer_not_assistant", "prompt_pairs", pair_row(chosen=[system("")]), "the role system"),
    ("no_user_turn", "ultrafeedback", chats([GOOD], [BAD]), "the roles are assistant"),
    ("no_user_turn", "prompt_pairs", pair_row([system("s")]), "the roles are system, assistant"),
    ("roles_do_not_alternate", "prompt_pairs", pair_row([user("q"), user("r")]), "messages 1 and 2 are both user"),
    ("answers_equal", "prompt_pairs", pair_row(chosen="same", rejected=[assistant("same")]), "both are 'same'"),
]


@pytest.mark.parametrize(("reason", "format", "row", "detail"), UNUSABLE)
def test_unusable_rows(reason, format, row, detail):
    with pytest.raises(UnusableRow) as caught:
        to_pair(row, format, DEFAULT_ROLES)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_every_reason_is_tried_above():
    assert {reason for reason, *_ in UNUSABLE} == {*PAIR_DROP_REASONS} - {"not_sampled"}
    assert len(PAIR_DROP_REASONS) == 16


def test_columns_ids_and_sources():
    rows = [
        pair_row(id="x", source="wiki", score=1, note=None, tags=["a"]),
        pair_row(prompt_id="h1", score=0.5),
        pair_row(id=7, prompt_id="h1", source=3),
        pair_row(id=None, note="n"),
    ]
    pairs, report = build_preferences(source(rows))
    assert pairs.column_names == ["id", "prompt", "chosen", "rejected", "source", "score", "note", "tags", "prompt_id"]
    assert pairs["id"][:] == ["x", "h1", "7", "p:3"]
    assert pairs["source"][:] == ["wiki", "p", "p", "p"]
    assert pairs["score"][:] == [1.0, 0.5, None, None]
    assert pairs["note"][:] == [None, None, None, "n"]
    assert pairs["prompt"][0] == [user("q")]
    assert pairs["tags"][:] == [["a"], None, None, None]
    assert report.columns_left_out == ["source"]
    assert report.format == "prompt_pairs"


def test_a_column_by_the_name_of_one_of_ours_is_left_out_and_listed():
    pairs, report = build_preferences(source([turns([said("human", "q")], prompt="other")]))
    assert pairs["prompt"][:] == [[user("q")]]
    assert report.columns_left_out == ["prompt"]


def test_several_pairs_of_one_prompt_are_all_kept():
    rows = [pair_row(prompt_id="p"), pair_row(), pair_row(prompt_id="p")]
    pairs, _ = build_preferences(source(rows, name="s"))
    assert pairs["id"][:] == ["p", "s:1", "p:2"]


def test_a_lone_surrogate_in_a_name_drops_its_pair():
    fields = pair_row([user("q") | {"\ud800f": 1}])
    answer = pair_row(chosen={"role": "\ud800x", "content": "good"})
    pairs, report = build_preferences(source([pair_row(), pair_row() | {"\ud800c": 1}, fields, answer]))
    assert (pairs["id"][:], report.drops) == (["p:0"], {"not_text": 2, "unknown_role": 1})
    json.dumps(report.as_dict(), ensure_ascii=False).encode()


def test_a_repeated_id_is_an_error():
    message = error([pair_row(id="1"), pair_row(), pair_row(id="1")])
    for part in ("'1'", "p:1", "p:3", "'id'"):
        assert part in message


def test_lengths_by_hand():
    rows = [
        pair_row(chosen="abcd", rejected="ab"),
        pair_row(chosen="é", rejected="no"),
        pair_row(chosen="x", rejected="y"),
    ]
    _, report = build_preferences(source(rows))
    assert (report.mean_chosen_chars, report.mean_rejected_chars) == (2.0, pytest.approx(5 / 3))
    assert report.chosen_longer_share == pytest.approx(1 / 3)


def test_drops_are_counted_with_the_first_five_examples():
    rows = [pair_row(), *[pair_row(chosen="bad")] * 7, pair_row([{"role": "judge", "content": "x"}]), pair_row(id="z")]
    pairs, report = build_preferences(source(rows))
    assert pairs["id"][:] == ["p:0", "z"]
    assert (report.rows_in, report.rows_out) == (10, 2)
    assert report.drops == {"answers_equal": 7, "unknown_role": 1}
    assert report.examples["answers_equal"] == [f"p:{number}: both are 'bad'" for number in range(2, 7)]
    assert report.unknown_roles == {"judge": 1}
    assert json.loads(json.dumps(report.as_dict()))["drops"] == report.drops


def test_nothing_usable_names_the_reasons():
    message = error([pair_row(chosen=""), pair_row(chosen="bad"), pair_row(chosen="bad")])
    for part in ("none of the 3 rows of p", "answers_equal: 2, first p:2", "empty_message: 1, first p:1"):
        assert part in message
    assert error([{"prompt": "q"}]).startswith("p:1: the columns 'prompt' fit no format of preference pairs")


def test_the_format_is_settled_by_the_first_rows_or_stated():
    rows = [turns([said("human", "q")]), pair_row()]
    assert build_preferences(source(rows))[1].drops == {"missing_conversation": 1}
    late, report = build_preferences(source([{"prompt": "q"}, pair_row()]))
    assert (late["id"][:], report.format) == (["p:1"], "prompt_pairs")
    detail = "p:1: column 'chosen' is absent; the row has 'prompt'"
    assert report.examples == {"missing_conversation": [detail]}
    both = [turns([said("human", "q")], "good", "bad", prompt="r")]
    assert build_preferences(source(both))[0]["prompt"][0] == [user("q")]
    assert build_preferences(source(both, format="prompt_pairs"))[0]["prompt"][0] == [user("r")]


def test_added_roles():
    rows = [turns([said("Asker", "q")], said("Expert", "good"), said("expert", "bad"))]
    pairs, _ = build_preferences(source(rows, roles={"asker": "user", "Expert": "assistant"}))
    assert pairs["prompt"][0] == [user("q")]
    with pytest.raises(UserError, match="'x' is mapped to 'y'"):
        source(rows, roles={"x": "y"})


def test_instruction_shares_part_the_pairs_by_the_first_question():
    rows = [pair_row([user(f"q{i % 30}"), assistant("a"), user(str(i))]) for i in range(90)]
    (low, low_report), (high, high_report) = (
        build_preferences(source(rows, instruction_share=share)) for share in ((0, 0.4), (0.4, 1))
    )
    assert all(instruction_fraction(prompt) < 0.4 for prompt in low["prompt"])
    assert all(instruction_fraction(prompt) >= 0.4 for prompt in high["prompt"])
    assert sorted([*low["id"], *high["id"]]) == sorted(f"p:{i}" for i in range(90))
    assert (low_report.rows_in, low_report.rows_outside_share) == (len(low), 90 - len(low))
    assert 0 < low_report.rows_in < high_report.rows_in


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(12)), st.integers(0, 5), st.integers(1, 12))
def test_a_sample_depends_on_the_ids_and_keeps_the_order_of_the_input(order, seed, sample):
    pairs, report = build_preferences(source([pair_row(id=f"i{number}") for number in order]), sample, seed)
    by_id = sorted(f"i{number}" for number in range(12))
    drawn = {by_id[place] for place in np.random.default_rng(seed).permutation(12)[:sample]}
    assert pairs["id"][:] == [f"i{number}" for number in order if f"i{number}" in drawn]
    assert (report.rows_in, report.rows_out) == (12, sample)
    assert report.drops == ({"not_sampled": 12 - sample} if sample < 12 else {})


def test_a_sample_is_drawn_of_the_usable_rows_over_chunks():
    rows = [pair_row(str(i), chosen=f"good {i}", number=i) if i % 3 else pair_row(chosen="bad") for i in range(3300)]
    pairs, report = build_preferences(source(rows), 1500, 3)
    assert report.drops == {"answers_equal": 1100, "not_sampled": 700}
    assert (report.rows_in, report.rows_out, len(pairs)) == (3300, 1500, 1500)
    assert pairs["number"][:] == sorted(pairs["number"])
    for row in pairs:
        number = row["number"]
        assert (row["id"], row["prompt"][0]["content"], row["chosen"]) == (f"p:{number}", str(number), f"good {number}")
    assert report.mean_chosen_chars == pytest.approx(mean(map(len, pairs["chosen"])))
    # Drawn all over the file: 500 of each third, give or take.
    thirds = Counter(number // 1100 for number in pairs["number"])
    assert all(400 < thirds[third] < 600 for third in range(3))
    assert set(build_preferences(source(rows), 1500, 4)[0]["id"]) != set(pairs["id"])


def test_a_sample_larger_than_what_is_there():
    message = error([pair_row(), pair_row(chosen="bad")], sample=2, seed=1)
    for part in ("sample: 2 pairs", "p has 1 usable", "1 more rows cannot be used", "at most 1"):
        assert part in message


TEXTS = st.sampled_from(["a", "b", "", " ", None, 3])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": TEXTS}),
    max_size=4,
)
SIDES = st.one_of(TEXTS, MESSAGES)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.fixed_dictionaries({name: SIDES for name in ("prompt", "chosen", "rejected")}), max_size=12))
def test_every_row_is_kept_or_counted_and_what_is_kept_is_a_pair(rows):
    for format in ("ultrafeedback", "prompt_pairs"):
        pairs, report = build_preferences(
            source([pair_row(), chats([user("q"), GOOD], [user("q"), BAD]), *rows], format=format)
        )
        assert report.rows_in == len(rows) + 2 == report.rows_out + sum(report.drops.values())
        assert set(report.drops) <= set(PAIR_DROP_REASONS)
        for pair in pairs:
            roles = [message["role"] for message in pair["prompt"]]
            assert roles[-1] != "assistant"
            spoken = [role for role in roles if role in ("user", "assistant")]
            spoken = [*spoken, "assistant"] if spoken[-1] == "user" else spoken
            assert spoken == (["user", "assistant"] * len(spoken))[-len(spoken) :]
            for before, role in pairwise(role for role in roles if role != "system"):
                assert role != "tool" or before in ("assistant", "tool")
            assert pair["chosen"].strip() and pair["rejected"].strip() and pair["chosen"] != pair["rejected"]


def test_a_real_file_in_the_columns_of_ultrafeedback(shared):
    path = shared / "data" / "real_preferences.jsonl"
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    pairs, report = build_preferences(PreferenceSource.from_dataset(str(path)))
    assert (report.rows_in, report.rows_out, report.drops, report.format) == (510, 510, {}, "ultrafeedback")
    assert report.columns_left_out == ["messages"]
    assert pairs.column_names == ["id", "prompt", "chosen", "rejected", "source", "score_chosen", "score_rejected"]
    for number, (pair, line) in enumerate(zip(pairs, raw, strict=True)):
        assert pair["id"] == f"real_preferences:{number}"
        assert pair["prompt"] == [user(line["prompt"])]
        for side in ("chosen", "rejected"):
            assert pair[side] == line[side][1]["content"]
            assert pair[f"score_{side}"] == line[f"score_{side}"]
    longer = sum(len(line["chosen"][1]["content"]) > len(line["rejected"][1]["content"]) for line in raw)
    assert report.chosen_longer_share == pytest.approx(longer / 510)
    assert report.mean_chosen_chars == pytest.approx(mean(len(line["chosen"][1]["content"]) for line in raw))


def test_a_sample_of_a_real_file(shared):
    path = str(shared / "data" / "real_preferences.jsonl")
    pairs, report = build_preferences(PreferenceSource.from_dataset(path), 100, 7)
    whole, _ = build_preferences(PreferenceSource.from_dataset(path))
    assert (report.rows_in, report.rows_out, report.drops) == (510, 100, {"not_sampled": 410})
    kept = set(pairs["id"])
    assert pairs.to_list() == [row for row in whole.to_list() if row["id"] in kept]


def test_a_real_multi_turn_file_of_sharegpt_pairs(shared, tmp_path):
    path = shared / "data" / "real_preferences_sharegpt.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    pairs, report = build_preferences(PreferenceSource.from_dataset(str(path)))
    assert (report.rows_in, report.rows_out, report.drops, report.format) == (300, 300, {}, "sharegpt_pairs")
    assert (report.columns_left_out, report.unknown_roles) == ([], {})
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    for pair, line in zip(pairs, raw, strict=True):
        expected = [{"role": names[turn["from"]], "content": turn["value"]} for turn in line["conversations"]]
        assert pair["prompt"] == expected
        assert (pair["chosen"], pair["rejected"]) == (line["chosen"]["value"], line["rejected"]["value"])
    # 114 rows ask at once, 80 after a system message, 106 after one to six earlier turns.
    lengths = Counter(len(prompt) for prompt in pairs["prompt"])
    assert (lengths[1], lengths[2], sum(lengths[n] for n in lengths if n > 2)) == (114, 80, 106)
    pairs.save_to_disk(tmp_path / "saved")
    again, _ = build_preferences(PreferenceSource.from_dataset(str(tmp_path / "saved")))
    assert again.to_list() == pairs.to_list()

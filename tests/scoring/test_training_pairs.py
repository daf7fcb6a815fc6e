import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.data.intake import instruction_fraction
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError
from deita_train.scoring.prompts import render
from deita_train.scoring.training_pairs import LabelColumn, ScorerExample, rank_levels, read_examples


def rows(*values):
    return [SourceRow(index, f"data.jsonl:{index + 1}", row) for index, row in enumerate(values)]


def label(rank=False, name="label", format=None, roles=None, share=None):
    return LabelColumn(name, rank, format, roles or {}, share)


def chat(*texts, **columns):
    speakers = ("human", "gpt")
    return {"conversations": [{"from": speakers[i % 2], "value": t} for i, t in enumerate(texts)], **columns}


def refusal(source_rows, dimension="complexity", column=None):
    with pytest.raises(UserError) as caught:
        read_examples(source_rows, dimension, column)
    return str(caught.value)


def test_published_rows_byte_for_byte():
    complexity = (
        "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
        "##Query: Name a fruit.  \n##Complexity: "
    )
    quality = (
        "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question."
        " \n #Question#:\nName a fruit.\n#Response#:\nA pear. \n##Quality: "
    )
    assert read_examples(rows({"input": complexity, "target": "1"}), "complexity", None) == [
        ScorerExample("data.jsonl:1", "Name a fruit.", None, 1)
    ]
    assert read_examples(rows({"input": quality, "target": 5}), "quality", None) == [
        ScorerExample("data.jsonl:1", "Name a fruit.", "A pear.", 5)
    ]


@pytest.mark.parametrize("row", [{"input": "\ud800", "target": 1}, {"instruction": "\ud800", "score": 1}])
def test_a_lone_surrogate_is_refused_by_its_place_in_unicode_text(row):
    message = refusal(rows(row))
    assert message.startswith(f"data.jsonl:1: {next(iter(row))} holds a lone surrogate, which is not Unicode text")
    assert "instruction is missing" in refusal(rows({"\ud800": 1, "score": 1})).encode().decode()


@given(st.text(), st.integers(1, 6))
def test_published_complexity_rows_round_trip(instruction, score):
    row = {"input": render("complexity", instruction, None), "target": str(score)}
    assert read_examples(rows(row), "complexity", None) == [ScorerExample("data.jsonl:1", instruction, None, score)]


@given(st.text(), st.text(), st.integers(1, 6))
def test_published_quality_rows_round_trip(instruction, response, score):
    row = {"input": render("quality", instruction, response), "target": score}
    assert read_examples(rows(row), "quality", None) == [ScorerExample("data.jsonl:1", instruction, response, score)]


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        (" leading and trailing  ", "  so too  "),
        ("{instruction}", "{output}"),
        ("a \n##Quality: 3", "b \n##Quality: "),
        ("line\n\n", "\n#Response#:\nagain"),
        ("a  \n##Complexity: ", "b"),
    ],
)
def test_awkward_texts_round_trip(instruction, response):
    published = rows({"input": render("quality", instruction, response), "target": 2})
    assert read_examples(published, "quality", None)[0].instruction == instruction
    assert read_examples(published, "quality", None)[0].response == response
    published = rows({"input": render("complexity", instruction, None), "target": 2})
    assert read_examples(published, "complexity", None)[0].instruction == instruction


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_an_input_without_its_last_space_is_read(dimension):
    row = {"input": render(dimension, "X", "Y").rstrip(" "), "target": 2}
    assert read_examples(rows(row), dimension, None)[0].instruction == "X"


@pytest.mark.parametrize(
    ("dimension", "text"),
    [("complexity", "X"), ("quality", "X"), ("complexity", render("quality", "X", "Y")), ("quality", None)],
)
def test_an_input_that_is_no_prompt_is_refused_with_its_place(dimension, text):
    good = {"input": render(dimension, "X", "Y"), "target": 1}
    message = refusal(rows(good, {"input": text, "target": 1}), dimension)
    assert message.startswith(f"data.jsonl:2: input is not the {dimension} scorer's prompt")


def test_plain_rows():
    source = rows({"instruction": "I", "response": "R", "score": 4}, {"instruction": "J", "response": "", "score": 6.0})
    assert read_examples(source, "quality", None) == [
        ScorerExample("data.jsonl:1", "I", "R", 4),
        ScorerExample("data.jsonl:2", "J", "", 6),
    ]
    assert [example.response for example in read_examples(source, "complexity", None)] == [None, None]


def test_a_plain_row_without_a_column_is_refused():
    message = refusal(rows({"instruction": "I", "score": 3}), "quality")
    assert message.startswith("data.jsonl:1:")
    assert "response is missing" in message
    assert "columns: 'instruction', 'score'" in message


@pytest.mark.parametrize("column", ["instruction", "response"])
@pytest.mark.parametrize("value", [None, 3, ["I"]])
def test_a_text_that_is_none_is_refused(column, value):
    row = {"instruction": "I", "response": "R", "score": 3, column: value}
    message = refusal(rows(row), "quality")
    assert message.startswith("data.jsonl:1:")
    assert column in message


@pytest.mark.parametrize("score", [0, 7, 3.5, "12", "", None, True, "three", float("nan"), -1, "3.00"])
def test_a_score_that_is_no_digit_is_refused(score):
    message = refusal(rows({"instruction": "I", "score": score}))
    assert message.startswith("data.jsonl:1:")
    assert repr(score) in message


@pytest.mark.parametrize(("score", "read"), [("3", 3), (" 3 ", 3), (3.0, 3), ("3.0", 3), (1, 1), (6, 6)])
def test_ways_to_write_a_score(score, read):
    assert read_examples(rows({"instruction": "I", "score": score}), "complexity", None)[0].score == read


@pytest.mark.parametrize("column", [None, label()])
def test_no_rows_is_an_error(column):
    assert "no rows" in refusal([], column=column)


def test_labelled_conversations_use_the_last_answered_turn():
    source = rows(chat("a", "b", "c", "d", label=5), chat("e", "f", "trailing", label="2"))
    assert read_examples(source, "quality", label()) == [
        ScorerExample("data.jsonl:1", "c", "d", 5),
        ScorerExample("data.jsonl:2", "e", "f", 2),
    ]
    assert read_examples(source, "complexity", label()) == [
        ScorerExample("data.jsonl:1", "c", None, 5),
        ScorerExample("data.jsonl:2", "e", None, 2),
    ]


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_a_labelled_answer_is_all_that_the_assistant_and_its_tools_say(dimension):
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "a", "thinking": "t"},
    ]
    (example,) = read_examples(rows({"messages": messages, "label": 3}), dimension, label())
    response = (
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n<tool_response>\n42\n</tool_response>\n'
        "<think>\nt\n</think>\n\na"
    )
    assert (example.instruction, example.response) == ("q", response if dimension == "quality" else None)


def test_label_column_format_and_roles_are_as_stated():
    row = {"messages": [{"role": "client", "content": "q"}, {"role": "model", "content": "a"}], "reward": 3}
    column = label(name="reward", format="messages", roles={"client": "user"})
    assert read_examples(rows(row), "quality", column) == [ScorerExample("data.jsonl:1", "q", "a", 3)]


def test_labels_are_ranked_among_the_answers_to_one_instruction():
    # Two instructions, interleaved; six answers each, in falling and in rising order of their labels.
    source = []
    for step in range(6):
        source += [chat("p", f"p{step}", label=-step / 10), chat("q", f"q{step}", label=1000 + step)]
    examples = read_examples(rows(*source), "quality", label(rank=True))
    assert [e.score for e in examples if e.instruction == "p"] == [6, 5, 4, 3, 2, 1]
    assert [e.score for e in examples if e.instruction == "q"] == [1, 2, 3, 4, 5, 6]
    assert [e.where for e in examples] == [f"data.jsonl:{n}" for n in range(1, 13)]


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), float("inf"), [1]])
def test_a_label_that_cannot_be_ranked_is_refused(value):
    message = refusal(rows(chat("a", "b", label=1.0), chat("a", "c", label=value)), "quality", label(rank=True))
    assert message.startswith("data.jsonl:2:")
    assert repr(value) in message


@pytest.mark.parametrize("row", [chat("a", "b"), chat("a", "b", label=None)])
def test_a_missing_label_is_refused(row):
    message = refusal(rows(row), "quality", label())
    assert message.startswith("data.jsonl:1: the label column label is missing")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (chat("a", " ", label=1), "empty_message"),
        ({"text": "x", "label": 1}, "'text', 'label'"),
        ({"messages": [], "label": 1}, "missing_conversation"),
        (
            {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}], "label": 1},
            "no answered turn",
        ),
    ],
)
def test_an_unusable_labelled_row_is_refused_with_its_place(row, part):
    message = refusal(rows(row), "quality", label())
    assert message.startswith("data.jsonl:1:")
    assert part in message


def test_only_the_stated_share_of_instructions_is_read():
    source = rows(*(chat(f"question {n}", "a", label=1 + n % 6) for n in range(60)))
    halves = [read_examples(source, "quality", label(share=share)) for share in ((0.0, 0.5), (0.5, 1.0))]
    assert all(len(half) > 15 for half in halves)
    assert sorted(e.where for half in halves for e in half) == sorted(row.where for row in source)
    for half, (low, high) in zip(halves, ((0.0, 0.5), (0.5, 1.0)), strict=True):
        for example in half:
            fraction = instruction_fraction([{"role": "user", "content": example.instruction}])
            assert low <= fraction < high


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([], []),
        ([0.3], [4]),  # the middle of one: 6 * 0.5 = 3, so the fourth part
        ([2.0, 1.0], [5, 2]),  # 6 * 0.25 = 1.5 and 6 * 0.75 = 4.5
        ([1.0, 2.0, 3.0], [2, 4, 6]),  # 6 * (1, 3, 5) / 6 = 1, 3, 5
        ([10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5, 6]),
        ([60, 10, 50, 20, 40, 30], [6, 1, 5, 2, 4, 3]),
        (list(range(12)), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        ([7.0] * 6, [4] * 6),  # mean rank 2.5, the middle
        ([1, 1, 1, 2, 2, 2], [2, 2, 2, 5, 5, 5]),  # mean ranks 1 and 4
        ([0, 0, 1, 2, 3, 4], [2, 2, 3, 4, 5, 6]),  # mean rank 0.5 of the tie: 6 * 1 / 6 = 1
    ],
)
def test_rank_levels_by_hand(values, levels):
    assert rank_levels(values) == levels


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=60, unique=True))
def test_distinct_values_use_all_levels_in_equal_parts(values):
    levels = rank_levels(values)
    sizes = [levels.count(level) for level in range(1, 7)]
    assert sum(sizes) == len(values)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_levels_are_monotone_and_do_not_depend_on_the_order(values, random):
    levels = rank_levels(values)
    by_value = {}
    for value, level in zip(values, levels, strict=True):
        assert by_value.setdefault(value, level) == level
        assert 1 <= level <= 6
    ascending = [by_value[value] for value in sorted(by_value)]
    assert ascending == sorted(ascending)
    order = list(range(len(values)))
    random.shuffle(order)
    assert rank_levels([values[i] for i in order]) == [levels[i] for i in order]

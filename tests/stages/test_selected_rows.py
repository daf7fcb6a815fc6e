"""What `select` keeps of rows with tools, reasoning and columns of any value, and what its files give again."""

import json

import datasets
import numpy as np
import pytest
from messages import assistant, system, tool, user

from deita_train.data.json_text import holds_json
from deita_train.data.outputs import Output
from deita_train.data.pool import PoolSource, build_pool
from deita_train.data.sources import SourceRow
from deita_train.data.writing import write_rows
from deita_train.errors import UserError
from deita_train.report.results.summary import read_trace
from deita_train.selection.measures.composition import conversation_sizes
from deita_train.selection.trace.traced_pool import traced_pool
from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.selecting import select

CALLS = [
    {"type": "function", "function": {"name": "f", "arguments": {"temperature": 0.7, "text": "é\u2028", "n": None}}}
]
CALL_TEXT = '<tool_call>\n{"name": "f", "arguments": {"temperature": 0.7, "text": "é\u2028", "n": null}}\n</tool_call>'
RESULT_TEXT = "<tool_response>\n42\n</tool_response>"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
ROWS = [
    {"messages": [user("plain"), assistant("x" * 50)], "id": "a", "score": 3},
    {
        "messages": [
            system("s"),
            user("q"),
            assistant("") | {"tool_calls": CALLS},
            tool("42") | {"tool_call_id": "c1", "name": "f"},
            assistant("done") | {"reasoning_content": "hm", "weight": 0, "own": {"b": [0.3, None]}},
        ],
        "tools": TOOLS,
        "id": "b",
        "score": "n/a",
        "meta": {"list": [1, {"x": 0.1}]},
    },
    {"messages": [user("r"), assistant("y")], "id": "c", "score": 0.7, "meta": [], "hash": 2**64 - 1, "tags": ["t"]},
]
COLUMNS = ("id", "messages", "source", "tools", "score", "meta", "hash", "tags")


def pool_of(rows):
    return build_pool([PoolSource("p", [SourceRow(i, f"p:{i + 1}", row) for i, row in enumerate(rows)])])


@pytest.fixture
def carry_out(tmp_path):
    """A function that selects from the rows above, and gives the selected rows and the trace."""
    pool, _ = pool_of(ROWS)
    pool.save_to_disk(str(tmp_path / "pool" / "data"))

    def run(**config):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        context = StageContext("select", "select", config, {}, {"pool": tmp_path / "pool"}, work, 0, 1, Progress(None))
        select.run(context)
        return tuple(datasets.load_from_disk(str(work / name)) for name in ("data", "trace"))

    return run


def own(rows):
    """Of each row the columns of the pool that are not null, by id."""
    return {row["id"]: {name: row[name] for name in COLUMNS if row.get(name) is not None} for row in rows}


EXPECTED = {row["id"]: {**row, "source": "p"} for row in ROWS}


def test_the_selected_rows_are_what_was_read(carry_out):
    selected, _ = carry_out(method="random", budget=3, seed=1)
    assert own(selected) == EXPECTED
    assert sorted(selected["selection_rank"]) == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".parquet", ""])
@pytest.mark.parametrize("budget", [2, 3])
def test_what_is_written_gives_the_same_pool_again(carry_out, tmp_path, suffix, budget):
    selected, _ = carry_out(method="random", budget=budget, seed=1)
    path = tmp_path / f"out{suffix}"
    write_rows(selected, Output.for_rows(str(path), overwrite=False))
    again, report = build_pool([PoolSource.from_dataset(str(path))])
    kept = {row_id: EXPECTED[row_id] for row_id in selected["id"]}
    assert own(again) == kept
    assert report.columns_left_out == []


def test_json_by_hand(carry_out, tmp_path):
    selected, _ = carry_out(method="longest_response", budget=1)
    write_rows(selected, Output.for_rows(str(tmp_path / "out.jsonl"), overwrite=False))
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    written = json.loads(line)
    assert written["messages"] == ROWS[1]["messages"]  # every key its own, and no null but those that were there
    assert '"temperature": 0.7,' in line and '"tools": [{"type": "function"' in line
    assert written["score"] == "n/a" and written["meta"] == {"list": [1, {"x": 0.1}]}


@pytest.mark.parametrize("suffix", [".parquet", ""])
def test_parquet_and_folders_keep_the_types(carry_out, tmp_path, suffix):
    selected, _ = carry_out(method="random", budget=3, seed=1)
    path = tmp_path / f"out{suffix}"
    write_rows(selected, Output.for_rows(str(path), overwrite=False))
    if suffix:
        again = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    else:
        again = datasets.load_from_disk(str(path))
    assert again.features == selected.features
    assert again.to_list() == selected.to_list()
    assert own(again) == EXPECTED


def test_the_trace_has_sizes_and_no_text(carry_out, tmp_path):
    _, trace = carry_out(method="random", budget=1, seed=1)
    sizes = {row["id"]: (row["num_turns"], row["num_chars"]) for row in trace}
    length = len("s" + "q" + CALL_TEXT + RESULT_TEXT + "<think>\nhm\n</think>\n\ndone")
    assert sizes == {"a": (1, 55), "b": (1, length), "c": (1, 2)}
    assert not any(map(holds_json, trace.features.values()))
    assert {"tags", "source"} < set(trace.column_names)
    assert content_digest(tmp_path / "work") == content_digest(tmp_path / "work")
    assert read_trace(tmp_path / "work").num_turns.tolist() == [1, 1, 1]


def test_all_rows_with_their_decision(carry_out, tmp_path):
    _, trace = carry_out(method="random", budget=1, seed=1)
    rows = traced_pool(datasets.load_from_disk(str(tmp_path / "pool" / "data")), trace)
    assert own(rows) == EXPECTED
    assert sorted(rows["selection_rank"], key=str) == [0, None, None]


@pytest.mark.parametrize(
    ("method", "first"),
    [("longest_response", "b"), ("longest_instruction", "a")],  # b's call counts, not its tool's result
)
def test_lengths_count_calls_and_reasoning(carry_out, method, first):
    selected, _ = carry_out(method=method, budget=1)
    assert selected["id"][:] == [first]


def test_the_sizes_of_conversations():
    length = len("s" + "q" + CALL_TEXT + RESULT_TEXT + "<think>\nhm\n</think>\n\ndone")
    for rows, expected in [
        (ROWS, [55, length, 2]),
        ([{"messages": [user("q"), assistant("call"), tool("42"), user("r")]}], [len("qcall" + RESULT_TEXT + "r")]),
    ]:
        characters, turns = conversation_sizes(pool_of(rows)[0])
        assert characters.tolist() == expected
        assert turns.tolist() == [sum(m["role"] == "user" for m in row["messages"]) for row in rows]
        assert characters.dtype == turns.dtype == np.int64


def test_a_number_is_asked_of_a_column_that_varies(carry_out):
    with pytest.raises(UserError) as caught:
        carry_out(method="direct_score", budget=1, column="score")
    for part in ("column 'score'", "values of several types", "needs a number in each row", "name another column"):
        assert part in str(caught.value)

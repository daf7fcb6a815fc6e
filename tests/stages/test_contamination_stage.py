"""The stage `contamination` over each kind of table, and a selection that removes what it found."""

import json

import datasets
import pytest

from deita_train.data.questions import FEATURES as OF_QUESTIONS
from deita_train.errors import UserError
from deita_train.selection.trace.traced_pool import traced_pool
from deita_train.stages.checks import check_rows
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.evaluating import contamination
from deita_train.stages.selecting import select

ASKED = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences"
NEXT = "Rewrite your previous response and start every sentence with the letter A"
TASK = "Which of these would most likely happen if all of the mirrors in a house were broken at once?"


def conversation(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


CALL = {
    "role": "assistant", "content": "", "tool_calls": [{"function": {"name": "search", "arguments": {"query": TASK}}}],
}  # fmt: skip
ROWS = {
    "a": conversation("Hello there", "How can I help?"),
    "b": conversation(f"Please: {ASKED.upper()}!", "Aloha."),
    "c": conversation("What did they ask?", f"First “{TASK.replace(' ', '  ')}” and then this: {NEXT}."),
    "d": conversation("Compose a travel blog post about Hawaii", "Aloha."),
}


class Folder:
    """The artefacts that the stages read."""

    def __init__(self, place):
        self.place = place

    def write(self, name, columns, features=None):
        table = datasets.Dataset.from_dict(columns, features=features)
        table.save_to_disk(str(self.place / name / "data"))
        (self.place / name / "manifest.json").write_text(json.dumps({"rows_out": len(table)}))

    def run(self, stage, kind, identity, runtime=None, **parents):
        work = self.place / kind
        work.mkdir(exist_ok=True)
        places = {role: self.place / name for role, name in parents.items()}
        context = StageContext(kind, kind, identity, runtime or {}, places, work, 0, 1, Progress(work / "progress"))
        result = stage.run(context)
        check_rows(context, vars(result))
        (work / "manifest.json").write_text(json.dumps({"rows_out": result.rows_out}))
        return result, datasets.load_from_disk(str(work / "data"))


@pytest.fixture
def folder(tmp_path):
    made = Folder(tmp_path)
    made.write("pool", {"id": list(ROWS), "messages": list(ROWS.values()), "length": [4.0, 3.0, 2.0, 1.0]})
    questions = {"id": ["81", "short"], "turns": [[ASKED, NEXT], ["Hi"]]}
    columns = {name: questions.get(name, [None, None]) for name in OF_QUESTIONS}
    made.write("mt", columns, OF_QUESTIONS)
    made.write("tasks", {"id": ["arc_challenge/7", "hellaswag/0", "hellaswag/1"], "question": [TASK, "No", None]})
    return made


BENCHMARKS = {"questions.mt_bench": "mt_bench", "lm_eval": None}


@pytest.fixture
def found(folder):
    parents = {"data": "pool", "questions.mt_bench": "mt", "lm_eval": "tasks"}
    return folder.run(contamination, "contamination", {"benchmarks": BENCHMARKS}, **parents)


def hits_of(table):
    """The hits by row, of the rows that have some."""
    return {
        row["id"]: [(hit["benchmark"], hit["question"], hit["span"]) for hit in row["hits"]]
        for row in table
        if row["hits"]
    }


def test_the_rows_of_a_pool(found):
    result, table = found
    assert (result.rows_in, result.rows_out, dict(result.drops)) == (4, 4, {})
    assert list(table["id"]) == list(ROWS)
    assert hits_of(table) == {
        "b": [("mt_bench", "81", ASKED.upper())],
        "c": [
            ("arc_challenge", "7", TASK.replace(" ", "  ").rstrip("?")),
            ("mt_bench", "81", NEXT),
        ],
    }
    assert table[2]["hits"][1] == {
        "benchmark": "mt_bench", "question": "81", "turn": 1, "message": 1, "role": "assistant",
        "start": ROWS["c"][1]["content"].index(NEXT), "end": len(ROWS["c"][1]["content"]) - 1, "span": NEXT,
        "words": 12, "share": pytest.approx(12 / 27),
    }  # fmt: skip


def test_prompts_of_tasks_are_read_without_their_frame(folder):
    names = [f"Name the {number} largest of all lakes." for number in ("two", "six", "ten", *"abcdefgh")]
    columns = {"id": [f"lakes/{place}" for place in range(11)], "question": [f"Q: {of}\nAnswer:" for of in names]}
    folder.write("tasks", columns)
    folder.write("rows", {"id": ["r", "s"], "messages": [conversation(names[1]), conversation("Q:")]})
    _, table = folder.run(
        contamination, "contamination", {"benchmarks": {"lm_eval": None}}, data="rows", lm_eval="tasks"
    )
    assert hits_of(table) == {"r": [("lakes", "1", names[1].rstrip("."))]}


def test_what_the_report_shows(found):
    metrics = found[0].metrics
    assert (metrics["rows"], metrics["found"]) == (4, 2)
    assert metrics["benchmarks"] == {
        "mt_bench": {"questions": 2, "left_out": {"too_short": 1}, "questions_found": 1, "rows": 2},
        "arc_challenge": {"questions": 1, "left_out": {}, "questions_found": 1, "rows": 1},
        "hellaswag": {"questions": 2, "left_out": {"too_short": 2}, "questions_found": 0, "rows": 0},
    }
    assert [(of["id"], of["benchmark"], of["words"]) for of in metrics["examples"]] == [
        ("b", "mt_bench", 15), ("c", "arc_challenge", 19),
    ]  # fmt: skip


def test_examples_go_from_the_longest_to_the_shortest(folder):
    texts = [" ".join(f"w{number}x{place}" for place in range(13 + number)) for number in range(7)]
    folder.write("prompts", {"id": list("abcdefg"), "turns": [[text] for text in texts]})
    folder.write("rows", {"id": list("ABCDEFG"), "messages": [conversation(text) for text in texts]})
    identity = {"benchmarks": {"questions.file1": "prompts"}}
    parents = {"data": "rows", "questions.file1": "prompts"}
    metrics = folder.run(contamination, "contamination", identity, **parents)[0].metrics
    assert [(of["id"], of["words"]) for of in metrics["examples"]] == [("G", 19), ("D", 16), ("A", 13)]


def test_pairs_and_calls_of_tools(folder):
    folder.write(
        "pairs",
        {
            "id": ["chosen", "rejected", "prompt", "none"],
            "prompt": [conversation("Hi"), conversation("Hi"), conversation(ASKED), conversation("Hi")],
            "chosen": [ASKED, "x", "x", "x"],
            "rejected": ["y", ASKED, "y", "y"],
        },
    )
    identity = {"benchmarks": {"questions.mt_bench": "mt_bench"}}
    _, table = folder.run(contamination, "contamination", identity, **{"data": "pairs", "questions.mt_bench": "mt"})
    where = {row["id"]: [(hit["message"], hit["role"]) for hit in row["hits"]] for row in table if row["hits"]}
    assert where == {"chosen": [(1, "assistant")], "rejected": [(2, "assistant")], "prompt": [(0, "user")]}
    messages = [[*conversation("Search for it"), CALL]]
    features = datasets.Features({"id": datasets.Value("string"), "messages": datasets.Json()})
    folder.write("calls", {"id": ["t"], "messages": messages}, features)
    _, table = folder.run(
        contamination, "contamination", {"benchmarks": {"lm_eval": None}}, data="calls", lm_eval="tasks"
    )
    assert hits_of(table) == {"t": [("arc_challenge", "7", TASK.rstrip("?"))]}


def test_data_without_a_repeated_question(folder):
    folder.write("clean", {"id": ["a"], "messages": [ROWS["a"]]})
    identity = {"benchmarks": {"questions.mt_bench": "mt_bench"}}
    result, table = folder.run(
        contamination, "contamination", identity, **{"data": "clean", "questions.mt_bench": "mt"}
    )
    assert (result.rows_out, result.metrics["found"], result.metrics["examples"]) == (1, 0, [])
    assert table.to_dict() == {"id": ["a"], "hits": [[]]}


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"method": "direct_score", "budget": 3, "column": "length"}, ["a", "d"]),
        ({"method": "random", "budget": 4, "seed": 1}, ["a", "d"]),
        ({"method": "longest_response", "budget": 1}, ["a"]),
        ({"method": "whole_pool", "budget": None}, ["a", "d"]),
    ],
)
def test_a_selection_removes_them_whatever_its_method(folder, found, config, kept):
    parents = {"pool": "pool", "contamination": "contamination"}
    result, rows = folder.run(select, "select", config, {"allow_fewer": False}, **parents)
    assert sorted(rows["id"]) == kept
    assert result.drops["contaminated"] == 2
    trace = datasets.load_from_disk(str(folder.place / "select" / "trace"))
    reasons = dict(zip(trace["id"], trace["not_ranked"], strict=True))
    assert {row_id for row_id, reason in reasons.items() if reason is None} == {"a", "d"}
    shown = traced_pool(datasets.load_from_disk(str(folder.place / "pool" / "data")), trace, found[1])
    assert list(shown["not_ranked"]) == [None, "contaminated", "contaminated", None]
    assert list(shown["contaminated_by"]) == [None, "mt_bench/81", "arc_challenge/7", None]
    assert shown["contaminated_span"][1] == ASKED.upper()
    again = traced_pool(shown, trace, found[1])
    assert again.column_names.count("contaminated_by") == 1 and list(again["id"]) == list(ROWS)


def test_a_row_counts_as_contaminated_whatever_else_it_lacks(folder, found):
    folder.write("pool", {"id": list(ROWS), "messages": list(ROWS.values()), "length": [4.0, None, 2.0, None]})
    config = {"method": "direct_score", "budget": 1, "column": "length"}
    parents = {"pool": "pool", "contamination": "contamination"}
    result, _ = folder.run(select, "select", config, {"allow_fewer": False}, **parents)
    assert result.drops == {"contaminated": 2, "no_value": 1}


def test_a_pool_that_is_nothing_but_questions(folder):
    folder.write("pool", {"id": ["b"], "messages": [ROWS["b"]]})
    identity = {"benchmarks": {"questions.mt_bench": "mt_bench"}}
    folder.run(contamination, "contamination", identity, **{"data": "pool", "questions.mt_bench": "mt"})
    parents = {"pool": "pool", "contamination": "contamination"}
    with pytest.raises(UserError, match="no row of the pool can be ranked: 1 repeat a question of a benchmark"):
        folder.run(select, "select", {"method": "random", "budget": 1, "seed": 1}, {"allow_fewer": False}, **parents)

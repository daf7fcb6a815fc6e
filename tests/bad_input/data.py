"""Mistakes in data files and their rows."""

import gzip

from bad_input.case import COMMIT, DATASET, Case, pool_rows
from bad_input.folder import LABELS, POOL, chat, labelled, lines, pair

DATA = [
    # Data files
    Case(
        "no such data file",
        "plan recipe.yaml",
        ("recipe.yaml: pool.dataset: pol.jsonl does not exist (looked in ",),
        {DATASET: "dataset: pol.jsonl"},
    ),
    Case(
        "a data set of the Hub without network",
        "plan recipe.yaml --stages",
        ("recipe.yaml: pool.dataset: nobody/no-such-data is not a local path", "Check the name and the network"),
        {DATASET: "dataset: nobody/no-such-data"},
    ),
    Case(
        "a data set of the Hub that was never fetched",
        "stage pool",
        ("dataset 'nobody/no-such-data'", "the Hub cannot serve it", "download the data and give the path"),
        {DATASET: f"dataset: nobody/no-such-data\n  revision: {COMMIT}"},
    ),
    Case(
        "a revision of a local file",
        "plan recipe.yaml",
        ("recipe.yaml: pool.revision: pool.jsonl is local", "Leave revision: out"),
        {DATASET: "dataset: pool.jsonl\n  revision: main"},
    ),
    Case(
        "a split of a local file",
        "validate recipe.yaml",
        ("pool.jsonl: split 'train' was given", "leave it out"),
        {DATASET: "dataset: pool.jsonl\n  split: train"},
    ),
    Case(
        "an unknown suffix",
        "validate recipe.yaml",
        ("recipe.yaml: pool.dataset: pool.txt: a data file ends in one of .json", "convert or rename it"),
        {DATASET: "dataset: pool.txt"},
        {"pool.txt": "instruction,output\n"},
    ),
    Case(
        "a file in UTF-16",
        "stage pool",
        ("pool.jsonl: the file is UTF-16", "convert it to UTF-8"),
        files={"pool.jsonl": lines(*POOL).encode("utf-16")},
    ),
    Case(
        "a CSV file with a quote that is not closed",
        "stage pool",
        ("pool.csv:2: malformed CSV", "fix the quotes"),
        {DATASET: "dataset: pool.csv"},
        {"pool.csv": 'instruction,output\n"a,b\n'},
    ),
    Case(
        "a pattern that matches nothing",
        "plan recipe.yaml",
        ("recipe.yaml: pool.dataset: part-*.jsonl matches no data file", "Correct the pattern"),
        {DATASET: "dataset: part-*.jsonl"},
    ),
    Case(
        "more rows than there are",
        "stage pool",
        ("rows: 99: source 'pool' has 8 usable rows", "state at most 8"),
        {DATASET: "dataset: pool.jsonl\n  rows: 99"},
    ),
    Case(
        "an empty file",
        "validate recipe.yaml",
        ("pool.jsonl: holds no rows", "written or downloaded completely"),
        files={"pool.jsonl": ""},
    ),
    Case(
        "a line that is no JSON",
        "stage pool",
        ("pool.jsonl:9: malformed JSON", "column 2", "one whole object"),
        files={"pool.jsonl": lines(*POOL) + "{'id': 9}\n"},
    ),
    Case(
        "an array that is no JSON",
        "stage pool",
        ("pool.json:3: malformed JSON array", "fix the file"),
        {DATASET: "dataset: pool.json"},
        {"pool.json": '[\n {"conversations": []},\n {"conversations" []}\n]\n'},
    ),
    Case(
        "a gz file that is cut off",
        "stage pool",
        ("pool.jsonl.gz:", "cannot be read, damaged or incomplete", "download or write the file again"),
        {DATASET: "dataset: pool.jsonl.gz"},
        {"pool.jsonl.gz": gzip.compress(lines(*POOL).encode())[:-20]},
    ),
    Case(
        "the same file twice in a pool",
        "validate recipe.yaml",
        ("recipe.yaml: pool.sources: pool.jsonl is named twice", "leave one out"),
        {DATASET: "sources:\n  - {dataset: pool.jsonl}\n  - {dataset: pool.jsonl}"},
    ),
    # Rows
    Case(
        "columns that fit no format",
        "stage pool",
        (
            "pool.jsonl:1: the columns 'title', 'body' fit no known format",
            "alpaca: instruction, input, output",
            "question_answer: question, context, answer",
            "rename the columns",
        ),
        files=pool_rows({"title": "a", "body": "b"}),
    ),
    Case(
        "an id that is there twice",
        "stage pool",
        ("id 'row-0' is used twice", "pool.jsonl:1 and pool.jsonl:3", "make the ids unique"),
        files=pool_rows(*POOL[:2], POOL[0]),
    ),
    Case(
        "unknown speakers",
        "stage pool",
        (
            "none of the 2 rows of pool can be used",
            "unknown_role: 2",
            "pool.jsonl:1: message 1 has the role 'teacher'",
            "state roles: for the speakers 'teacher', 'pupil'",
        ),
        files=pool_rows(chat(0, "teacher", "pupil"), chat(1, "teacher", "pupil")),
    ),
    Case(
        "empty conversations",
        "stage pool",
        (
            "none of the 2 rows of pool can be used",
            "pool.jsonl:1: column 'conversations' is an empty list",
            "check that format and roles",
        ),
        files=pool_rows(chat(0), chat(1)),
    ),
    Case(
        "rows without an answer",
        "stage pool",
        ("none of the 1 rows", "no_assistant_turn: 1", "pool.jsonl:1: the roles are user"),
        files=pool_rows(chat(0, "human")),
    ),
    Case(
        "a label above 6",
        "stage train_scorer.complexity",
        ("labels.jsonl:9: score 7 is not a whole number from 1 to 6", "fix it or leave it out"),
        files={"labels.jsonl": lines(*LABELS, labelled(9, 7))},
    ),
    Case(
        "rows without a label",
        "validate recipe.yaml",
        ("labels.jsonl:1: a scorer's row has", "score is missing", "state label:"),
        files={"labels.jsonl": lines({"instruction": "a"})},
        right="stage pool",
    ),
    Case(
        "pairs without a rejected answer",
        "stage dpo_data",
        ("pairs.jsonl:1", "'prompt', 'chosen'", "rejected"),
        files={"pairs.jsonl": lines(pair(0, rejected=None))},
    ),
    Case(
        "a sample larger than the data",
        "stage dpo_data",
        ("sample", "9", "4"),
        {"{dataset: pairs.jsonl}": "{dataset: pairs.jsonl, sample: 9}"},
    ),
    Case(
        "equal answers only",
        "stage dpo_data",
        ("none of the 1 rows", "answers_equal: 1"),
        files={"pairs.jsonl": lines(pair(0, chosen="Yes.", rejected="Yes."))},
    ),
]

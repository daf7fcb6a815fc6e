"""What the report says of data that repeats questions."""

from fake_run import FakeRun

from deita_train.report.page import write_report
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.contamination_section import TITLE, contamination_section

SPAN = "Tell <b>me</b> | `x`\n<script>alert(1)</script>"
EXAMPLE = {
    "id": "pool:7", "benchmark": "mt_bench", "question": "81", "turn": 0, "message": 0, "role": "user", "start": 0,
    "end": len(SPAN), "span": SPAN, "words": 13, "share": 0.5,
}  # fmt: skip


def benchmark(questions, found, rows, **left_out):
    return {"questions": questions, "left_out": left_out, "questions_found": found, "rows": rows}


def write_run(folder):
    run = FakeRun(folder)
    pool = {"mt_bench": benchmark(80, 2, 3), "alpaca_eval": benchmark(805, 0, 0, too_short=4, shared_by_many=1)}
    heldout = {"mt_bench": benchmark(80, 0, 0), "alpaca_eval": benchmark(805, 0, 0, too_short=4, shared_by_many=1)}
    stages = {
        "contamination.pool": run.add(
            "contamination-0",
            "contamination",
            "contamination.pool",
            rows=1000,
            found=3,
            benchmarks=pool,
            examples=[EXAMPLE],
        ),
        "contamination.heldout": run.add(
            "contamination-1",
            "contamination",
            "contamination.heldout",
            rows=64,
            found=0,
            benchmarks=heldout,
            examples=[],
        ),
    }
    run.write_cells([{"label": "base", "settings": {}, "base": True, "stages": stages}])
    return run.run_dir, run.store


def test_counts_and_examples(tmp_path):
    section = contamination_section(read_summary(*write_run(tmp_path)), [])
    counts, examples = section.tables
    assert counts.rows == (
        ("pool", "mt_bench", "80", "2", "1,000", "3", "0.3%"),
        ("pool", "alpaca_eval", "800", "0", "1,000", "0", "0.0%"),
        ("held-out rows", "mt_bench", "80", "0", "64", "0", "0.0%"),
        ("held-out rows", "alpaca_eval", "800", "0", "64", "0", "0.0%"),
    )
    assert examples.rows == (("pool", "mt_bench/81", " ".join(SPAN.split()), "13", "50.0%", "pool:7"),)
    assert section.notes == (
        "alpaca_eval: 5 of 805 questions (0.6%) are not looked for: 4 are too short, 1 consist of text that more than "
        "ten questions share.",
    )
    assert "does not find questions in other words" in section.text


def test_the_page_shows_the_words_of_rows_as_text(tmp_path):
    page = write_report(*write_run(tmp_path))
    text = page.read_text(encoding="utf-8")
    assert TITLE in text and "&lt;script&gt;alert(1)" in text and "<script>alert(1)" not in text


def test_no_section_without_the_stage(tmp_path):
    run = FakeRun(tmp_path)
    run.write_cells(
        [{"label": "base", "settings": {}, "base": True, "stages": {"pool": run.add("pool-0", "pool", "pool")}}]
    )
    assert contamination_section(read_summary(run.run_dir, run.store), []) is None


def test_of_many_tasks_those_without_a_hit_are_one_row(tmp_path):
    run = FakeRun(tmp_path)
    tasks = {f"mmlu_{number}": benchmark(100, 0, 0, too_short=2) for number in range(20)} | {"arc": benchmark(50, 1, 2)}
    pool = run.add(
        "contamination-0", "contamination", "contamination.pool", rows=100, found=2, benchmarks=tasks, examples=[]
    )
    run.write_cells([{"label": "base", "settings": {}, "base": True, "stages": {"contamination.pool": pool}}])
    section = contamination_section(read_summary(run.run_dir, run.store), [])
    assert [row[1:4] for row in section.tables[0].rows] == [
        ("arc", "50", "1"),
        ("20 tasks without a hit", "1,960", "0"),
    ]
    assert section.notes == ()


def test_an_artefact_that_serves_twice_is_shown_once(tmp_path):
    run = FakeRun(tmp_path)
    bench = {"mt_bench": benchmark(80, 2, 3)}
    made = run.add(
        "contamination-0", "contamination", "decontaminate", rows=100, found=3, benchmarks=bench, examples=[]
    )
    stages = {"decontaminate": made, "contamination.pool": made}
    run.write_cells([{"label": "base", "settings": {}, "base": True, "stages": stages}])
    section = contamination_section(read_summary(run.run_dir, run.store), [])
    assert [row[0] for row in section.tables[0].rows] == ["pool, removed before the selection"]

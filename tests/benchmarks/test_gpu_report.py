"""The tables of docs/performance.md from made-up runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu_report
from gpu.record import FIELDS, line

SFT = "SFT, 4,096 tokens, bfloat16"


def row(part, what, status="ok", date="2027-03-01T10:20:30+00:00", **known):
    base = {"device": "NVIDIA H200", "dry_run": False, "date": date, "seconds": 9.0, "peak_memory_gib": 81.25}
    return line(part, what, status, **{**base, "product_tflops": 790.0, **known})


def first_run():
    speed = {"tokens_per_second": 11_000.0, "mfu": 0.48, "share_of_product": 0.605}
    seconds = {"selection_seconds": 2.5, "order_seconds": 0.25, "check_seconds": 0.5}
    return [
        row("filter", "Repr Filter", details=seconds),
        row("filter", "the part", details={"ok": 1}),
        row("sft", SFT, **speed, details={"shares": {"matrix products": 0.75, "idle": 0.05}}),
        row("sft", gpu_report.DPO, tokens_per_second=9_900.0, mfu=0.4),
        row("sft", f"{SFT}, packed", "out of memory", reason="CUDA out of memory"),
        row("sft", "the part", "timed out", reason="ended after 260 s", details={"ok": 2, "out of memory": 1}),
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text(f"before\n\n{gpu_report.BEGIN}\nold\n{gpu_report.END}\n\nafter\n")
    return path


def report(tmp_path, document, *arguments):
    gpu_report.main([*map(str, arguments)], tmp_path / "results", document)
    return document.read_text()


def cells(text, what):
    found = next(one for one in text.splitlines() if one.startswith(f"| {what} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_without_a_run_every_row_says_so(tmp_path, document):
    text = report(tmp_path, document)
    assert text.startswith("before\n\n<!-- gpu results") and text.endswith("<!-- end of gpu results -->\n\nafter\n")
    assert "old" not in text and "nothing below has been measured" in text
    for what in (*gpu_report.SPEEDS, *gpu_report.FILTERS):
        assert cells(text, what)[1] == "not yet measured"
    assert cells(text, "LoRA, 4,096 tokens, bfloat16, packed")[5] == "14,000 tokens/s"


def test_a_run_is_kept_and_shown_beside_the_aims(tmp_path, document):
    added = write(tmp_path / "results.jsonl", first_run())
    text = report(tmp_path, document, "--add", added)
    kept = tmp_path / "results" / "2027-03-01-1020-nvidia-h200.jsonl"
    assert kept.read_bytes() == added.read_bytes()
    assert "- 2027-03-01, NVIDIA H200, `benchmarks/gpu.sh`, python 3" in text and "790 TFLOP/s" in text
    assert cells(text, SFT) == [
        SFT, "11,000", "48.0%", "60.5%", "81.2", "12,400 tokens/s, 56.4% MFU", gpu_report.SPEEDS[SFT][1], "",
    ]  # fmt: skip
    assert cells(text, f"{SFT}, packed")[1] == "out of memory: CUDA out of memory"
    assert cells(text, "scoring, engine")[1] == "not yet measured"
    assert "DPO reaches 90% of the tokens a second" in text
    assert cells(text, "Repr Filter")[1:4] == ["2.50", "0.75", "under 3 s"]
    assert "| what | matrix products | idle |" in text and f"| {SFT} | 75.0% | 5.0% |" in text
    assert "- part `sft`: timed out in 9 s: 2 ok, 1 out of memory\n  - " in text


def test_a_later_run_is_compared_with_the_one_before(tmp_path, document):
    results = tmp_path / "results"
    results.mkdir()
    write(results / "2027-03-01-1020-nvidia-h200.jsonl", first_run())
    later = [
        row("sft", SFT, tokens_per_second=12_100.0, mfu=0.53, date="2027-04-01T09:00:00+00:00"),
        row("sft", gpu_report.DPO, "failed", reason="E: no"),
    ]
    write(results / "2027-04-01-0900-nvidia-h200.jsonl", later)
    text = report(tmp_path, document)
    assert cells(text, SFT)[1:3] == ["12,100", "53.0%"] and cells(text, SFT)[-1] == "11,000 (+10.0%)"
    assert cells(text, gpu_report.DPO)[1] == "failed: E: no"
    assert cells(text, "Repr Filter")[1] == "2.50"  # the newest run that has it
    assert "DPO reaches" not in text
    assert text.index("2027-04-01") < text.index("2027-03-01")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("sft", SFT, dry_run=True)], "is of a dry run"),
        ([row("sft", "the part", "failed")], "has no row that was measured"),
    ],
)
def test_what_was_not_measured_is_not_kept(tmp_path, document, rows, message):
    added = write(tmp_path / "results.jsonl", rows)
    with pytest.raises(SystemExit, match=message):
        report(tmp_path, document, "--add", added)
    assert not (tmp_path / "results").exists()


def test_a_document_without_the_marks_is_left_alone(tmp_path, document):
    document.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the line"):
        report(tmp_path, document)
    assert document.read_text() == "no marks"


def test_the_document_of_this_checkout_has_the_marks():
    text = gpu_report.DOCUMENT.read_text()
    assert text.count(gpu_report.BEGIN) == text.count(gpu_report.END) == 1
    assert all(what in text for what in (*gpu_report.SPEEDS, *gpu_report.FILTERS))


def test_the_rows_that_have_aims_are_rows_of_the_parts():
    from gpu.sft import VARIANTS

    names = {variant.name for variant in VARIANTS}
    trained = [what for what in gpu_report.SPEEDS if what.startswith(("SFT", "LoRA"))]
    assert len(trained) == 5 and set(trained) <= names
    assert set(FIELDS) == set(row("sft", SFT))

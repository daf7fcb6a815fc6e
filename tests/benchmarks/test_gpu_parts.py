"""benchmarks/gpu.sh on a CPU: every part in miniature, parts that break, and the parts' own arithmetic."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = ["smoke", "passes", "filter", "sft", "packing", "rest"]
sys.path.append(str(BENCHMARKS))

from gpu import record  # noqa: E402
from gpu.runner import Part, run_parts  # noqa: E402

import deita_train.training.step_watch  # noqa: E402, F401  # once here, or else in each forked part


def gpu_sh(out, *arguments):
    environment = os.environ | {"OUT": str(out), "PYTHON": sys.executable}
    command = [str(BENCHMARKS / "gpu.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


def lines(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("dry")
    answer = gpu_sh(out, "--dry-run")
    logs = "".join(log.read_text()[-3000:] for log in out.glob("*.log"))
    assert answer.returncode == 0, answer.stdout + answer.stderr + logs
    return out, answer.stdout


def test_every_part_leaves_its_rows_and_a_log(dry_run):
    out, _ = dry_run
    assert {path.name for path in out.iterdir()} == {"results.jsonl", *(f"{part}.log" for part in PARTS)}
    found = lines(out)
    assert [line["part"] for line in found if line["what"] == "the part"] == PARTS
    assert len(found) > 35
    for line in found:
        assert set(line) == set(record.FIELDS)
        assert line["status"] == "ok" or (line["status"] == "skipped" and line["reason"]), line
        assert line["dry_run"] is True and line["device"].startswith("CPU") and line["seconds"] >= 0
        assert line["command"] == "benchmarks/gpu.sh --dry-run" and line["versions"]["torch"] == torch.__version__
    rows = [line for line in found if line["what"] != "the part"]
    assert {line["part"] for line in rows if line["status"] == "ok"} == set(PARTS)
    assert all(line["product_tflops"] > 0 for line in rows if line["status"] == "ok")


def test_speeds_carry_their_shares_and_shapes(dry_run):
    rows = {line["what"]: line for line in lines(dry_run[0])}
    for what in ("scoring, engine", "embedding, engine", "SFT, 4,096 tokens, bfloat16, packed, compiled"):
        row = rows[what]
        assert row["tokens_per_second"] > 0 and 0 < row["share_of_product"] < 1 and row["peak_memory_gib"] > 0
        assert row["mfu"] is None and row["shape"]["hidden_size"] == 64
    assert rows["scoring, engine"]["details"]["largest_difference_to_loop"] < 1e-4
    # Until the first step DPO's policy is its reference, whose log-probabilities another pass computed.
    dpo = rows["DPO, 1,024 tokens a sequence, bfloat16, with its reference"]
    assert abs(dpo["details"]["first_loss_less_log_2"]) < 1e-4
    assert rows["packed against alone, sdpa, float32"]["details"]["gradient_error"] < 1e-4


def test_the_console_has_a_line_for_each_row(dry_run):
    out, console = dry_run
    assert all(f"{line['part']}: {line['what']}: {line['status']}" in console for line in lines(out))
    assert f"gpu_report.py --add {out}/results.jsonl" in console


def test_a_part_that_fails_or_runs_out_of_time_does_not_stop_the_next(tmp_path):
    def broken(_):
        raise OSError("a broken part")

    def slow(recorder):
        recorder.measure("before", {}, record.Figures)
        time.sleep(60)

    def fine(recorder):
        recorder.measure("fine", {"rows": 3}, lambda: record.Figures(12.0, 5, {"found": 1}))

    started = time.monotonic()
    parts = {"slow": Part(slow, 3), "broken": Part(broken, 30), "fine": Part(fine, 30)}
    assert run_parts(parts, tmp_path, dry_run=True) == 2
    assert time.monotonic() - started < 30
    found = lines(tmp_path)
    assert [(line["part"], line["what"], line["status"]) for line in found] == [
        ("slow", "before", "ok"),
        ("slow", "the part", "timed out"),
        ("broken", "the part", "failed"),
        ("fine", "fine", "ok"),
        ("fine", "the part", "ok"),
    ]
    assert found[1]["reason"] == "ended after 3 s" and "broken.log" in found[2]["reason"]
    assert "OSError: a broken part" in (tmp_path / "broken.log").read_text()
    assert found[3]["tokens_per_second"] == 12.0 and found[3]["details"] == {"found": 1}
    assert found[3]["share_of_product"] == pytest.approx(60 / (found[3]["product_tflops"] * 1e12))


def test_a_row_that_fails_does_not_stop_the_next(tmp_path):
    def fail(error):
        raise error

    def run(recorder):
        recorder.measure("wrong", {}, lambda: fail(ValueError("wrong")))
        recorder.measure("large", {}, lambda: fail(torch.OutOfMemoryError("too large\nand more")))
        recorder.measure("absent", {}, lambda: fail(record.UnavailableError("not here")))
        recorder.measure("long", {}, record.Figures, needs_seconds=1000)
        recorder.measure("fine", {}, record.Figures)

    assert run_parts({"part": Part(run, 60)}, tmp_path, dry_run=True) == 1
    *rows, whole = lines(tmp_path)
    assert [(row["what"], row["status"]) for row in rows] == [
        ("wrong", "failed"), ("large", "out of memory"), ("absent", "skipped"), ("long", "skipped"), ("fine", "ok"),
    ]  # fmt: skip
    assert [row["reason"] for row in rows[:3]] == ["ValueError: wrong", "too large", "not here"]
    assert "1000 wanted" in rows[3]["reason"]
    assert whole["status"] == "failed"
    assert whole["details"] == {"failed": 1, "out of memory": 1, "skipped": 2, "ok": 1}


def test_without_a_gpu_a_part_says_so_in_a_process_of_its_own(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    answer = gpu_sh(tmp_path, "filter:60")
    assert answer.returncode == 1
    (whole,) = lines(tmp_path)
    assert (whole["part"], whole["status"], whole["device"]) == ("filter", "failed", "unknown")
    assert "no CUDA device; --dry-run" in (tmp_path / "filter.log").read_text()


def test_an_unknown_part_is_refused(tmp_path):
    answer = gpu_sh(tmp_path / "out", "filters")
    assert answer.returncode == 2 and "the parts are smoke, passes, filter" in answer.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", "matrix products"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("void at::native::multi_tensor_apply_kernel<...FusedAdamMathFunctor...>", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::MulFunctor<float>>",
            "norms, gates, rotations, casts",
        ),
    ],
)
def test_kernels_are_sorted_by_name(kernel, kind):
    from gpu.profiling import kind_of

    assert kind_of(kernel) == kind

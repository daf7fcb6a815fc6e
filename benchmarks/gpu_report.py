"""Write what benchmarks/gpu.sh measured into docs/performance.md, beside the aims and what others published.

    python3 benchmarks/gpu_report.py --add OUT/results.jsonl     keep a run in benchmarks/results/, then write
    python3 benchmarks/gpu_report.py                             write from what is kept there

A row shows the newest run that has it, and the one before that. Only what stands between the two marks is replaced.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- gpu results: benchmarks/gpu_report.py writes these lines -->", "<!-- end of gpu results -->"
NOT_YET = "not yet measured"
_WHOLE = "the part"
_NO_AIM = ("", "")
_SFT_AIM = "12,400 tokens/s, 56.4% MFU"
_SFT_PUBLISHED = "12,412 tokens/s, 56.4% MFU: 8B, packed 4,096, H100, 8 GPUs (NVIDIA DGX Cloud benchmark recipe)"
_ENGINE_AIM = "45,000 tokens/s, 65% MFU, 10 times the loop"
SFT_ALONE, DPO = "SFT, 4,096 tokens, bfloat16", "DPO, 1,024 tokens a sequence, bfloat16, with its reference"
FILTER = "Repr Filter"
# Rows that are shown in any case, in this order: the aim, and the best figure that was published for such work.
SPEEDS: Mapping[str, tuple[str, str]] = {
    "scoring, one at a time": _NO_AIM,
    "scoring, engine": (_ENGINE_AIM, "about 58,600 tokens/s: 8B in FP8 with 128 decoded, one H100 (TensorRT-LLM)"),
    "embedding, one at a time": _NO_AIM,
    "embedding, engine": (_ENGINE_AIM, ""),
    SFT_ALONE: (_SFT_AIM, _SFT_PUBLISHED),
    f"{SFT_ALONE}, packed": (_SFT_AIM, _SFT_PUBLISHED),
    f"{SFT_ALONE}, packed, compiled": (_SFT_AIM, _SFT_PUBLISHED),
    "SFT, 4,096 tokens, float32 weights, packed, checkpointing": _NO_AIM,
    "LoRA, 4,096 tokens, bfloat16, packed": ("14,000 tokens/s", ""),
    DPO: ("90% of SFT's tokens/s", "none found"),
}
FILTERS: Mapping[str, tuple[str, str]] = {
    FILTER: ("under 3 s", "81.56 (hours, as read): 50,000 kept, DEITA's public code, one GPU (ACL Findings 2025)"),
    f"{FILTER}, the same rows on the CPU": ("the same bits", ""),
}

Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A kept file: its lines by what they measured, the last of each."""

    name: str
    lines: dict[str, Result]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """From a file of JSON lines."""
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return cls(path.name, {_key(line): line for line in lines})


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Keep a run where one is named, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, metavar="FILE", help="results.jsonl of a run")
    options = parser.parse_args(arguments)
    if options.add is not None:
        print(f"kept as {keep(options.add, results)}")
    runs = [Run.read(path) for path in sorted(results.glob("*.jsonl"), reverse=True)]
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{document} lacks the line {BEGIN} or, behind it, {END}")
    document.write_text(f"{before}{BEGIN}\n\n{text(runs)}\n{END}{after}", encoding="utf-8")
    print(f"{len(runs)} runs written to {document}")


def keep(path: Path, results: Path) -> Path:
    """Copy a run under its date, time and device."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    measured = [line for line in lines if line["what"] != _WHOLE]
    if not measured:
        raise SystemExit(f"{path} has no row that was measured")
    if any(line["dry_run"] for line in lines):
        raise SystemExit(f"{path} is of a dry run, whose figures mean nothing")
    device = re.sub(r"[^a-z0-9]+", "-", measured[0]["device"].lower()).strip("-")
    kept = results / f"{measured[0]['date'][:16].replace(':', '').replace('T', '-')}-{device}.jsonl"
    results.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())
    return kept


def text(runs: Sequence[Run]) -> str:
    """Everything between the marks, from the runs, the newest first."""
    parts = [_heading(runs), _speeds(runs), _dpo_share(runs), _filters(runs), _shares(runs), _checks(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _key(line: Result) -> str:
    return f"{line['part']}: {_WHOLE}" if line["what"] == _WHOLE else line["what"]


def _heading(runs: Sequence[Run]) -> str:
    if not runs:
        return "No run is kept in `benchmarks/results/`: nothing below has been measured."
    lines = []
    for run in runs:
        first = next(iter(run.lines.values()))
        versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
        product = max((line["product_tflops"] or 0 for line in run.lines.values()), default=0)
        device = next((line["device"] for line in run.lines.values() if line["device"] != "unknown"), "unknown")
        lines.append(
            f"- {first['date'][:10]}, {device}, `{first['command']}`, {versions}; a matrix product ran at "
            f"{product:,.0f} TFLOP/s (`benchmarks/results/{run.name}`)"
        )
    return "Runs, the newest first:\n\n" + "\n".join(lines)


def _history(runs: Sequence[Run], what: str) -> list[Result]:
    """The lines of a row that measured something, the newest first; one that failed counts only while it is newest."""
    found = [run.lines[what] for run in runs if what in run.lines]
    return found[:1] + [line for line in found[1:] if line["status"] == "ok"]


def _names(runs: Sequence[Run], expected: Mapping[str, Any], has: str) -> list[str]:
    """The expected rows, then others of any run that have a figure of that name."""
    others = (
        what for run in runs for what, line in run.lines.items() if line[has] is not None and what not in expected
    )
    return [*expected, *dict.fromkeys(others)]


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(columns)
    return "\n".join(["| " + " | ".join(columns) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def _speeds(runs: Sequence[Run]) -> str:
    columns = ("what", "tokens/s", "MFU", "of a product", "GiB", "aim", "best published", "run before")
    return _table(columns, (_speed(runs, what) for what in _names(runs, SPEEDS, "tokens_per_second")))


def _speed(runs: Sequence[Run], what: str) -> Sequence[str]:
    aims = SPEEDS.get(what, _NO_AIM)
    found = _history(runs, what)
    if not found:
        return (what, NOT_YET, "", "", "", *aims, "")
    line = found[0]
    if line["status"] != "ok":
        return (what, f"{line['status']}: {line['reason']}", "", "", "", *aims, "")
    before = [one["tokens_per_second"] for one in found[1:2]]
    return (
        what,
        f"{line['tokens_per_second']:,.0f}",
        _percent(line["mfu"]),
        _percent(line["share_of_product"]),
        f"{line['peak_memory_gib']:.1f}",
        *aims,
        *([f"{rate:,.0f} ({line['tokens_per_second'] / rate - 1:+.1%})" for rate in before] or [""]),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _dpo_share(runs: Sequence[Run]) -> str:
    rates = [_history(runs, what)[:1] for what in (DPO, SFT_ALONE)]
    if any(not found or found[0]["status"] != "ok" for found in rates):
        return ""
    share = rates[0][0]["tokens_per_second"] / rates[1][0]["tokens_per_second"]
    return f"DPO reaches {share:.0%} of the tokens a second of SFT on rows of one conversation."


def _filters(runs: Sequence[Run]) -> str:
    columns = ("what", "seconds", "of these, before the walk", "aim", "best published", "run before")
    return _table(columns, (_filter(runs, what) for what in FILTERS))


def _filter(runs: Sequence[Run], what: str) -> Sequence[str]:
    found = _history(runs, what)
    if not found:
        return (what, NOT_YET, "", *FILTERS[what], "")
    line = found[0]
    if line["status"] != "ok":
        return (what, f"{line['status']}: {line['reason']}", "", *FILTERS[what], "")
    details = line["details"]
    early = [details[name] for name in ("order_seconds", "check_seconds") if name in details]
    before = [f"{one['details']['selection_seconds']:.2f}" for one in found[1:2]]
    seconds = f"{details['selection_seconds']:.2f}"
    return (what, seconds, f"{sum(early):.2f}" if early else "", *FILTERS[what], *(before or [""]))


def _shares(runs: Sequence[Run]) -> str:
    """Where the time of profiled rows went."""
    names = dict.fromkeys(what for run in runs for what, line in run.lines.items() if line["details"].get("shares"))
    newest = {what: _history(runs, what)[0]["details"].get("shares", {}) for what in names}
    kinds = list(dict.fromkeys(kind for shares in newest.values() for kind in shares))
    if not kinds:
        return ""
    rows = ([what, *(_percent(shares.get(kind)) for kind in kinds)] for what, shares in newest.items())
    return "Share of the time by kind of kernel:\n\n" + _table(("what", *kinds), rows)


def _checks(runs: Sequence[Run]) -> str:
    """How each part ended, and every row of the newest run of it that did not end well."""
    if not runs:
        return ""
    wholes = list(dict.fromkeys(what for run in runs for what in run.lines if what.endswith(f": {_WHOLE}")))
    lines = []
    for whole in wholes:
        run = next(run for run in runs if whole in run.lines)
        line = run.lines[whole]
        counts = ", ".join(f"{count} {status}" for status, count in line["details"].items())
        lines.append(f"- part `{line['part']}`: {line['status']} in {line['seconds']:.0f} s: {counts or 'no rows'}")
        lines += [
            f"  - {what}: {row['status']}: {row['reason']}"
            for what, row in run.lines.items()
            if row["part"] == line["part"] and row["status"] != "ok" and what != whole
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

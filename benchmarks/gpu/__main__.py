"""python -m gpu [PART[:SECONDS] ...] [--dry-run]; benchmarks/gpu.sh sets up the environment for it."""

import argparse
import gc
import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from gpu.record import RESULTS
from gpu.runner import Named, Part, run_parts

# In order of worth; together nine and a half minutes.
SECONDS = {"smoke": 40.0, "passes": 80.0, "filter": 45.0, "sft": 260.0, "packing": 70.0, "rest": 75.0}
# Of a dry run; accelerate imports deepspeed, where it is installed, at the first training.
PRELOADED = (
    "deita_train.training.trainer_run", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer",
    "transformers.models.mistral.modeling_mistral", "transformers.models.llama.modeling_llama", "deepspeed",
)  # fmt: skip
DESCRIPTION = """Measure on one GPU what can be measured there, part by part.

Results go to the folder that OUT names (default: benchmarks/results/<date and time>): results.jsonl, a line for each
row, and a log for each part. Seconds that a part leaves over are the next one's.
"""


def main() -> int:
    """Read the options, run the parts."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    limits = ", ".join(f"{name}:{seconds:.0f}" for name, seconds in SECONDS.items())
    parser.add_argument("parts", nargs="*", metavar="PART[:SECONDS]", help=f"default: {limits}")
    parser.add_argument("--dry-run", action="store_true", help="miniature shapes on a CPU")
    options = parser.parse_args()
    try:
        parts = dict(_part(text) for text in options.parts or SECONDS)
    except ValueError as error:
        parser.error(str(error))
    out = Path(os.environ.get("OUT") or _default_out())
    if options.dry_run:
        _import_everything()
    bad = run_parts(parts, out, dry_run=options.dry_run)
    print(f"{out / RESULTS}; into the docs with: python3 benchmarks/gpu_report.py --add {out / RESULTS}")
    return 1 if bad else 0


def _part(text: str) -> tuple[str, Part]:
    name, colon, seconds = text.partition(":")
    if name not in SECONDS:
        raise ValueError(f"{name!r} is no part; the parts are {', '.join(SECONDS)}")
    return name, Part(Named(name), float(seconds) if colon else SECONDS[name])


def _default_out() -> Path:
    return Path(__file__).parents[1] / "results" / f"{datetime.now(UTC):%Y-%m-%d-%H%M}"


def _import_everything() -> None:
    """What the forked parts share; importing it in each would take most of their time."""
    for name in PRELOADED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    gc.freeze()  # each row collects garbage, and none of this is


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Measure on one GPU: benchmarks/gpu.sh [PART[:SECONDS] ...] [--dry-run]; --help lists the parts.
# Packages that python3 lacks are taken from benchmarks/wheels, which benchmarks/gpu_wheels.py fills.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
export GPU_COMMAND="benchmarks/gpu.sh${*:+ $*}"
# Nothing is downloaded; without this some libraries wait for a network that is not there.
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"

case " $* " in *" --dry-run "*) export OMP_NUM_THREADS=1 ;; esac

missing=$("$python" - <<'END'
from importlib.util import find_spec
names = ("torch", "transformers", "accelerate", "trl", "peft", "datasets", "pydantic", "ruamel.yaml", "httpx")
def lacks(name):
    try:
        return find_spec(name) is None
    except ModuleNotFoundError:
        return True
print(" ".join(filter(lacks, names)))
END
) || exit 2
if [ -n "$missing" ]; then
  if ! ls "$root"/benchmarks/wheels/*.whl >/dev/null 2>&1; then
    echo "$python lacks $missing. With a network: pip install '$root[qlora,dev]'. Without: fill benchmarks/wheels by" \
      "benchmarks/gpu_wheels.py on a machine that has one." >&2
    exit 2
  fi
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$root"/benchmarks/wheels/*.whl || exit 2
  export PYTHONPATH="$site:$PYTHONPATH"
fi
"$python" -m gpu "$@"

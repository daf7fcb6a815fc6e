"""A sweep as a SLURM job script: one array task per cell, before them what they share, after them the report."""

import shlex
from pathlib import Path

from deita_train.plan.cells import SHARED, check_sweep, run_command
from deita_train.plan.plan import Plan

_SCRIPT = """\
#!/bin/bash
# The {count} cells of the sweep in {recipe}, one array task each.
# Save this as {file}, edit the lines that begin with #SBATCH, and submit it three times from {folder}:
#
#   mkdir -p {logs}
#   shared=$(sbatch --parsable --array=1 {file} shared)
#   cells=$(sbatch --parsable --dependency=afterok:"$shared" {file})
#   sbatch --array=1 --dependency=afterany:"$cells" {file} report
#
# The first job makes what two or more cells need, and the array the rest of each cell. The last job tries once more
# what failed or ran out of time, and writes the report. The same lines again continue where these stopped.
# Give every job the same kind of machine: GPUs and CPUs have different defaults, so they make different artefacts.
#SBATCH --job-name={name}
#SBATCH --array=1-{count}
#SBATCH --requeue
#SBATCH --output={output}
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
{gpus}
set -euo pipefail
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-$(nproc)}}}}"

cells=(
{cells}
)
case "${{1:-cell}}" in
  shared)
    {run} --cell {shared}
    ;;
  cell)
    {run} --cell "${{cells[${{SLURM_ARRAY_TASK_ID:?is set by sbatch --array}} - 1]}}"
    ;;
  report)
    {run}
    ;;
  *)
    echo "unknown part $1: shared, cell or report" >&2
    exit 2
    ;;
esac
"""


def slurm_script(plan: Plan, until: str | None) -> str:
    """The text of the script.

    Raises:
        UserError: the recipe has no sweep.
    """
    check_sweep(plan, "--slurm")
    name = plan.loaded.recipe.name
    logs = plan.run_dir / "slurm"
    return _SCRIPT.format(
        count=len(plan.cells),
        recipe=plan.loaded.path,
        file=f"{name}.sbatch",
        folder=Path.cwd(),
        logs=shlex.quote(str(logs)),
        name=name,
        # SLURM expands %x, %A and %a in the name of a log file; the folder's own per cent signs are doubled.
        output=shlex.quote(f"{str(logs).replace('%', '%%')}/%x-%A_%a.log"),
        gpus=_gpus(plan),
        cells="\n".join(f"  {shlex.quote(cell.label)}" for cell in plan.cells),
        run=run_command(plan, until),
        shared=SHARED,
    )


def _gpus(plan: Plan) -> str:
    """The line that requests as many GPUs as the largest launch, commented out where no stage needs one."""
    launches = [node.runtime["launch"] for node in plan.nodes if "launch" in node.runtime]
    most = max((launch["num_processes"] for launch in launches if not launch["use_cpu"]), default=0)
    return f"#SBATCH --gpus-per-node={most}" if most else "##SBATCH --gpus-per-node=1"

"""Stages that failed: what the run says of them, and what it records for the report."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.run.retrying import after_tries
from deita_train.store.locks import hold
from deita_train.store.run_record import FAILURES, RecordedFailure, read_failures, write_failures


class StageFailed(Exception):
    """A stage failed and the user did not cause it; the message says where to look and how to go on."""


@dataclass(frozen=True)
class FailedNode:
    """A stage that failed in this run.

    Attributes:
        cells: the labels of the cells that need it.
        user_error: whether the user can fix it.
        logs: the folder of its logs.
        retry: the command that tries it again.
        passing: whether the same may succeed a little later.
    """

    node: Node
    cells: tuple[str, ...]
    message: str
    user_error: bool
    logs: Path
    retry: str
    passing: bool = False

    def after(self, tries: int) -> "FailedNode":
        """The same as the last of several failures."""
        return replace(self, message=after_tries(self.message, tries))

    def error(self) -> Exception:
        """The exception for a run that ends with this failure."""
        if self.user_error:
            is_named = self.message.startswith(f"{self.node.label}: ")
            return UserError(self.message if is_named else f"{self.node.label}: {self.message}")
        return StageFailed(
            f"{self.node.label} failed: {self.message}\n  logs:    {self.logs}\n  retry:   {self.retry}\n"
            "Published artefacts are kept; run the same command again to continue from here."
        )

    def recorded(self) -> RecordedFailure:
        """The failure as `failures.json` keeps it."""
        return RecordedFailure(self.node.id, self.node.label, self.cells, self.message, self.user_error)


def failures_error(failed: Sequence[FailedNode], num_skipped: int, report_error: str | None) -> Exception:
    """The error at the end of a run that went on after failures: each with its cells, logs and command.

    A :class:`UserError` when the user can fix all of them.
    """
    several = len(failed) > 1
    skipped = f" and {num_skipped} more could not be built without {'them' if several else 'it'}" if num_skipped else ""
    parts = [f"{len(failed)} stage{'s' if several else ''} failed{skipped}; everything else is done."]
    parts += [_description(number, failure) for number, failure in enumerate(failed, 1)]
    if report_error is not None:
        parts.append(report_error)
    parts.append("Published artefacts are kept; the same `deita-train run` tries the failed stages again.")
    is_users = report_error is None and all(failure.user_error for failure in failed)
    return (UserError if is_users else StageFailed)("\n".join(parts))


def _description(number: int, failure: FailedNode) -> str:
    return (
        f"{number}. {failure.node.label}\n  error:   {failure.message}\n  cells:   {'; '.join(failure.cells)}\n"
        f"  logs:    {failure.logs}\n  retry:   {failure.retry}"
    )


def update_failures(
    plan: Plan, missing: Collection[str], tried: Collection[str] = (), failed: Sequence[FailedNode] = ()
) -> None:
    """Bring `failures.json` up to date.

    It keeps the artefacts of the plan that failed when last tried and are still missing.

    Args:
        plan: whose run the failures belong to.
        missing: ids of the artefacts that are to be built.
        tried: ids of artefacts whose earlier failures no longer count.
        failed: new failures.
    """
    if not failed and not (plan.run_dir / FAILURES).exists():
        return
    with hold(run_lock(plan), None, FAILURES, on_wait=lambda holder: None):  # held for a moment: nothing to report
        left = {*missing} - {*tried, *(failure.node.id for failure in failed)}
        kept = [failure for failure in read_failures(plan.run_dir) if failure.artefact in left]
        write_failures(plan.run_dir, [*kept, *(failure.recorded() for failure in failed)])


def run_lock(plan: Plan) -> Path:
    """The lock of what several runs of one recipe write together: the failures and the report."""
    return plan.store.folder / ".locks" / f"run-{plan.loaded.recipe.name}.lock"

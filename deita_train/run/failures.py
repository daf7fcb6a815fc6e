"""Stages that failed: what the run says of them, and what it leaves for the report."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.store.locks import hold

FAILURES = "failures.json"


class StageFailed(Exception):
    """A stage broke through no known mistake of the user's; the message says where to look and how to go on."""


@dataclass(frozen=True)
class Failure:
    """One stage that failed: the cells that need it, what happened, where its logs lie and what repeats it."""

    node: Node
    cells: tuple[str, ...]
    message: str
    user_error: bool
    logs: Path
    again: str

    def error(self) -> Exception:
        """The error that ends a run which has nothing else to do."""
        if self.user_error:
            return UserError(self.message if self._names_itself else f"{self.node.label}: {self.message}")
        return StageFailed(
            f"{self.node.label} failed: {self.message}\n  logs:    {self.logs}\n  again:   {self.again}\n"
            "What is published stays; the same command continues here."
        )

    @property
    def _names_itself(self) -> bool:
        return self.message.startswith(f"{self.node.label}: ")

    def as_dict(self) -> dict[str, Any]:
        """As `failures.json` keeps it."""
        return {
            "artefact": self.node.id,
            "label": self.node.label,
            "cells": list(self.cells),
            "message": self.message,
            "user_error": self.user_error,
        }


def failures_error(failures: Sequence[Failure], num_skipped: int, report_error: str | None) -> Exception:
    """The error at the end of a run that went on: every failure with its cells, its logs and its command.

    A :class:`UserError` when the user can mend all of them.
    """
    several = len(failures) > 1
    skipped = f", and {num_skipped} more could not be made without {'them' if several else 'it'}" if num_skipped else ""
    parts = [f"{len(failures)} stage{'s' if several else ''} failed{skipped}; everything else is made."]
    parts += [_description(number, failure) for number, failure in enumerate(failures, 1)]
    if report_error is not None:
        parts.append(report_error)
    parts.append("What is published stays; the same `deita-train run` tries the failed stages again.")
    mendable = report_error is None and all(failure.user_error for failure in failures)
    return (UserError if mendable else StageFailed)("\n".join(parts))


def _description(number: int, failure: Failure) -> str:
    return (
        f"{number}. {failure.node.label}\n  error:   {failure.message}\n  cells:   {'; '.join(failure.cells)}\n"
        f"  logs:    {failure.logs}\n  again:   {failure.again}"
    )


def keep_failures(plan: Plan, tried: Collection[str] = (), failed: Sequence[Failure] = ()) -> None:
    """Bring `failures.json` up to date: artefacts of the plan that failed when they were last tried, and are missing.

    `tried` are the ids of artefacts whose earlier failures no longer count. Without any failure there is no file.
    """
    path = plan.run_dir / FAILURES
    if not failed and not path.exists():
        return
    with hold(run_lock(plan), None, FAILURES, on_wait=_silently):
        missing = {node.id for node in plan.nodes if not is_current(plan.store, node)}
        forgotten = {*tried, *(failure.node.id for failure in failed)}
        before = read_json(path) if path.exists() else []
        entries = [entry for entry in before if entry["artefact"] in missing - forgotten]
        entries += [failure.as_dict() for failure in failed]
        if entries:
            write_json_atomically(path, entries)
        else:
            path.unlink(missing_ok=True)


def run_lock(plan: Plan) -> Path:
    """The lock of what several runs of one recipe write together: the failures and the report."""
    return plan.store.folder / ".locks" / f"run-{plan.loaded.recipe.name}.lock"


def _silently(holder: str) -> None:
    """What the lock guards takes a moment: nothing to say."""

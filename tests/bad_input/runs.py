"""Mistakes of the command line, trainings that cannot work, whole runs, and faults of the machine."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bad_input.case import SELECTED, SFT_TRAINER, Case, pool_rows, scorer
from bad_input.folder import LABELS, POOL, UsersFolder, labelled, lines, no_file_above, read_only

from deita_train.store.artefacts import Store
from deita_train.store.locks import hold

PUBLISHED = ("pool",)
FULL = ("file too large", "raise the limit on the size of a file", "--runs", "Then run again")
LONG_ROWS = pool_rows(*({**row, "note": "x" * 9000} for row in POOL))


def locked(folder: UsersFolder) -> AbstractContextManager:
    """Another run is making the pool."""
    return hold(Store(Path("runs/store")).lock_path(folder.artefact("pool")), None, "pool")


def without_right_to_write(folder: UsersFolder) -> AbstractContextManager:
    """A runs folder that may be read only."""
    (folder.path / "runs").mkdir()
    return read_only(folder.path / "runs")


def after_a_stopped_run(folder: UsersFolder) -> AbstractContextManager:
    """As a run that was stopped leaves it: the record names an artefact that is not there."""
    assert folder.command("run recipe.yaml --until pool").code == 0
    shutil.rmtree(folder.path / "runs" / "store" / folder.artefact("pool"))
    return nullcontext()


def after_a_run_with_damage(folder: UsersFolder) -> AbstractContextManager:
    """A run is complete, and then somebody edits an artefact."""
    assert folder.command("run recipe.yaml --until pool").code == 0
    folder.write({f"runs/store/{folder.artefact('pool')}/metrics.json": "{"})
    return nullcontext()


def on_a_full_disk_after_a_run(folder: UsersFolder) -> AbstractContextManager:
    """A run is complete, and then the disk is full."""
    assert folder.command("run recipe.yaml --until pool").code == 0
    return no_file_above(2000)


RUNS = [
    # The command line
    Case(
        "--set without =",
        "plan recipe.yaml --set select.budget",
        ("--set select.budget: no '='", "path=value"),
        right="plan recipe.yaml",
    ),
    Case(
        "a compared method without its column",
        "select pool.jsonl --method random --budget 2 --output kept.jsonl --compare longest_response,ifd",
        ("--compare ifd: reads a column", "--set select.column=NAME", "--set perplexity.model=MODEL"),
        right=None,
    ),
    Case(
        "a method compared with itself",
        "select pool.jsonl --method random --budget 2 --output kept.jsonl --compare longest_response,random",
        ("--compare: random is the method of the selection itself", "leave it out"),
        right=None,
    ),
    Case(
        "a comparison's table in the way",
        "select pool.jsonl --method random --budget 2 --output kept.jsonl --compare longest_response",
        ("--output kept.compare.md is there already", "--overwrite"),
        files={"kept.compare.md": "notes\n"},
        right=None,
    ),
    Case(
        "--set through a value",
        "plan recipe.yaml --set select.budget.rows=3",
        ("--set select.budget.rows=3: select.budget is not a section", "set select.budget itself"),
        right="plan recipe.yaml",
    ),
    Case(
        "--set of an unknown key",
        "plan recipe.yaml --set select.budgt=3",
        ("--set select.budgt=3: select.budgt: unknown key", "did you mean budget?"),
        right="plan recipe.yaml",
    ),
    Case(
        "--until of an unknown stage",
        "plan recipe.yaml --until selct",
        ("--until selct: the recipe has no such stage", "select", "leave --until out"),
        right="plan recipe.yaml --until select",
    ),
    Case(
        "--fresh of an unknown stage",
        "run recipe.yaml --fresh selct",
        ("--fresh selct: ", "no such stage", "select"),
        right=None,
    ),
    Case(
        "--stage of an unknown id",
        "stage recipe.yaml pool-000000000000",
        ("recipe.yaml has no stage pool-000000000000", "deita-train plan recipe.yaml"),
        right="stage pool",
    ),
    Case(
        "--cell without a sweep",
        "run recipe.yaml --cell 0",
        ("--cell: recipe.yaml has no sweep:", "Leave --cell out"),
        right=None,
    ),
    Case(
        "a row to inspect that is not there",
        "inspect recipe.yaml --stage sft --row row-99",
        ("--row row-99: sft has no such row", "the nearest are row-"),
        made=SELECTED,
        right="inspect recipe.yaml --stage sft",
    ),
    Case(
        "a stage to inspect that is not there",
        "inspect recipe.yaml --stage sftt",
        ("--stage sftt: recipe.yaml has no such stage to inspect", "sft"),
        right=None,
    ),
    Case(
        "a stage before what it reads",
        "stage sft",
        ("sft reads select, which is not made yet", "run the recipe up to it first"),
        right=None,
    ),
    Case(
        "the report of no run", "report runs/mine", ("runs/mine is not a run", "stages.json", "runs/<name>"), right=None
    ),
    # Trainings and passes
    Case(
        "no room for an answer",
        "stage sft",
        ("none of 4 rows", "the first are row-", "Raise max_length"),
        {SFT_TRAINER: "{max_length: 8}"},
        made=SELECTED,
        right=None,
    ),
    Case(
        "no room for a scorer's prompt",
        "stage train_scorer.complexity",
        ("labels.jsonl:1: max_length 8 has no room for the prompt", "raise it"),
        scorer("max_length: 8"),
        right=None,
    ),
    Case(
        "a budget above the pool",
        "stage select",
        ("the budget is 100 rows, but only 8 of 8 can be selected", "lower select.budget"),
        {"budget: 4": "budget: 100"},
        made=("pool",),
    ),
    Case(
        "a loss that is not finite",
        "stage sft",
        ("the loss is nan at step 2", "has the rows ", "lower trainer.learning_rate"),
        {SFT_TRAINER: "{learning_rate: 1e30, num_train_epochs: 3}"},
        made=SELECTED,
        right="stage sft",
    ),
    # Whole runs
    Case(
        "a run whose last training would fail",
        "run recipe.yaml",
        ("recipe.yaml: sft.trainer.model_init_kwargs: ", "unexpected keyword argument 'atn'"),
        {SFT_TRAINER: "{model_init_kwargs: {atn: eager}, max_length: 256}"},
        right=None,
    ),
    Case(
        "a run whose data has a mistake",
        "run recipe.yaml --until train_scorer",
        ("train_scorer.complexity: labels.jsonl:9: score 7",),
        files={"labels.jsonl": lines(*LABELS, labelled(9, 7))},
    ),
    Case(
        "a run with a cell that cannot be made",
        "run recipe.yaml --until select",
        (
            "1 stage failed",
            "select: the budget is 100 rows, but only 8 of 8",
            "cells: ",
            "budget 100",
            "tries the failed stages again",
        ),
        {"evaluate:": "sweep: {select.budget: [3, 100]}\nevaluate:"},
        leaves=SELECTED,
        right=None,
    ),
    Case(
        "a run beside another one",
        "run recipe.yaml --until pool",
        ("pool is being made by process", "Wait for it, or stop it"),
        during=locked,
    ),
    Case(
        "a run on a full disk",
        "run recipe.yaml --until pool",
        ("pool: runs/store/.work/pool-", *FULL),
        files=LONG_ROWS,
        during=lambda folder: no_file_above(30_000),
        in_process=False,
    ),
    Case(
        "a report on a full disk",
        "report runs/mine",
        FULL,
        during=on_a_full_disk_after_a_run,
        leaves=PUBLISHED,
    ),
    Case(
        "a report of a run that was stopped",
        "report runs/mine",
        ("runs/store/pool-", "manifest.json is missing", "Run the recipe again"),
        during=after_a_stopped_run,
        leaves=PUBLISHED[1:],
        right="run recipe.yaml --until pool",
    ),
    Case(
        "a report of an artefact that was damaged",
        "run recipe.yaml --until pool",
        ("report: runs/store/pool-", "metrics.json is damaged", "run the recipe again"),
        during=after_a_run_with_damage,
        leaves=PUBLISHED,
        right=None,
    ),
    # The machine
    Case(
        "a full disk while planning",
        "plan recipe.yaml",
        ("runs/store/content_hashes.json: ", *FULL),
        during=lambda folder: no_file_above(1000),
    ),
    Case(
        "a full disk in a stage",
        "stage pool",
        ("runs/store/.work/pool-", *FULL),
        files=LONG_ROWS,
        during=lambda folder: no_file_above(30_000),
    ),
    Case(
        "a full disk in a training",
        "stage train_scorer.complexity",
        ("runs/store/.work/train_scorer-", *FULL),
        during=lambda folder: no_file_above(20_000),
    ),
    Case(
        "no right to write",
        "plan recipe.yaml",
        ("runs/store: permission denied", "change its permissions"),
        during=without_right_to_write,
    ),
    Case(
        "a system's folder for the runs",
        "plan recipe.yaml --runs /sys/runs",
        ("/sys/runs: ", "Then run again"),
        right="plan recipe.yaml",
    ),
    Case(
        "a file where the runs belong",
        "plan recipe.yaml",
        ("runs/store: not a directory", "move it away"),
        files={"runs": "notes\n"},
        right="plan recipe.yaml --runs elsewhere",
    ),
    Case(
        "another run is at work",
        "stage pool",
        (f"pool is being made by process {os.getpid()} on", "Wait for it, or stop it, then run again"),
        during=locked,
    ),
    Case(
        "a damaged record of the last run",
        "plan recipe.yaml",
        ("runs/mine/stages.json is damaged", "remove it and run again"),
        files={"runs/mine/stages.json": "{"},
        right=None,
    ),
]

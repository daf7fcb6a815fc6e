"""`deita-train report` with several runs, from records and artefacts written here."""

import json

import datasets
from typer.testing import CliRunner

from deita_train.cli import app


def write_run(runs, name, losses):
    """A run with the base model's evaluation on held-out rows."""
    artefact = runs / "store" / f"evaluate-{name}"
    rows = [{"id": f"r{n}", "loss": loss, "tokens": 2} for n, loss in enumerate(losses)]
    datasets.Dataset.from_list(rows).save_to_disk(str(artefact / "data"))
    (artefact / "manifest.json").write_text(json.dumps({"id": artefact.name, "config": {}, "parents": {}}))
    (artefact / "metrics.json").write_text("{}")
    stages = {"evaluate.sft": artefact.name}
    node = {"label": "evaluate.sft", "kind": "evaluate", "config": {}, "parents": {}}
    cell = {"label": "base", "settings": {}, "base": True, "stages": stages}
    record = {"name": name, "description": "", "seed": 1, "cells": [cell], "nodes": {artefact.name: node}}
    (runs / name).mkdir()
    (runs / name / "stages.json").write_text(json.dumps(record))
    (runs / name / "recipe.resolved.yaml").write_text("name: x\n")
    return runs / name


def test_several_runs_are_compared_with_the_first(tmp_path):
    first, second = write_run(tmp_path, "one", [4.0, 4.0, 4.0]), write_run(tmp_path, "two", [3.0, 3.0, 3.0])
    (first / "report").mkdir()
    (first / "report" / "report.md").write_text("its own")
    result = CliRunner().invoke(app, ["report", str(first), str(second)])
    assert result.exit_code == 0, result.output
    (page,) = (first / "compared").iterdir()
    assert str(page) in result.output.replace("\n", "") and "loss per token" in result.output
    minus = "\N{MINUS SIGN}"
    row = f"| Held-out rows | two (SFT) {minus} one (SFT) | {minus}0.5000 ({minus}0.5000 to {minus}0.5000) | 3 |"
    assert row in page.read_text()
    assert (first / "report" / "report.md").read_text() == "its own" and not (second / "report").exists()

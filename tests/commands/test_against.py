"""`evaluate --against` up to the measuring, and what it prints, from artefacts written here."""

import io
import json
from dataclasses import fields
from types import SimpleNamespace

import datasets
import pytest
from rich.console import Console

from deita_train.commands.against import MODEL, against, print_models
from deita_train.commands.single import Single
from deita_train.errors import UserError
from deita_train.store.artefacts import Manifest, Store

FIELDS = {MODEL: "m", "evaluate.heldout.dataset": "h.jsonl", "evaluate.answers.questions.dataset": "q.jsonl"}


def single(fields=FIELDS, sets=()):
    return Single("evaluate", None, fields, {MODEL: "--model"}, sets)


def test_the_other_model_is_measured_alike_but_answers_nothing():
    other = against(single(), "n")
    assert other.fields == {MODEL: "n", "evaluate.heldout.dataset": "h.jsonl"} and other.names == {MODEL: "--against"}


@pytest.mark.parametrize(
    ("of", "model", "message"),
    [
        (single({MODEL: "m"}), "n", "state --heldout, --preferences"),
        (single(), "m", "is --model itself"),
        (single(sets=("evaluate.model=x",)), "n", "would be the model of both"),
    ],
)
def test_what_cannot_be_compared_is_refused(of, model, message):
    with pytest.raises(UserError, match=message):
        against(of, model)


def plan_of(tmp_path, name, losses):
    rows = [{"id": f"r{n}", "loss": loss, "tokens": 2} for n, loss in enumerate(losses)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / name / "data"))
    facts = {field.name: None for field in fields(Manifest)} | {"id": name, "config": {}, "parents": {}}
    (tmp_path / name / "manifest.json").write_text(json.dumps(facts))
    (tmp_path / name / "metrics.json").write_text("{}")
    nodes = {"evaluate.base": SimpleNamespace(id=name)}
    return SimpleNamespace(cells=[SimpleNamespace(nodes=nodes)], store=Store(tmp_path))


def test_the_difference_of_two_models_is_printed(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    plans = {name: plan_of(tmp_path, name, losses) for name, losses in (("n", [4.0, 4.0]), ("m", [3.0, 5.0]))}
    print_models(console, plans)
    text = console.file.getvalue()
    minus = "\N{MINUS SIGN}"
    assert f"m {minus} n" in text and f"0.0 ({minus}0.5000 to 0.5000)" in text
    assert "Held-out rows: the interval holds zero: these questions do not tell m and n apart." in text

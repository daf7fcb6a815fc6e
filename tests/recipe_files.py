"""The shipped recipes as files: their headers, and the commands in them."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

import deita_train
from deita_train.cli import app
from deita_train.plan import plan as plan_module

ROOT = Path(deita_train.__file__).parent.parent
RECIPES = ROOT / "recipes"


def files_below(folder: str) -> list[str]:
    """The recipes of a folder of recipes/, as paths below recipes/."""
    return sorted(str(path.relative_to(RECIPES)) for path in (RECIPES / folder).rglob("*.y*ml"))


def header(file: str) -> list[str]:
    """The comment that a recipe starts with, without its signs."""
    lines = (RECIPES / file).read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#") for line in lines[:end]]


def commands(file: str) -> list[list[str]]:
    """The commands of a recipe's header as words; those that go on after a backslash are one."""
    text = re.sub(r"\\\n\s*", "", "\n".join(header(file)))
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("deita-train ")]
    for name, value in {"$F": "real_pool_sharegpt.jsonl", "$LM": "my_model", "$ENCODER": "my_encoder"}.items():
        lines = [line.replace(name, value) for line in lines]
    return [shlex.split(line, comments=True) for line in lines]


class Parsed(Exception):
    """What the command line asked to be planned."""


def parsed(words, monkeypatch):
    """Recipe, overrides, stage to stop at and GPUs of a command line, by the command line's own parser."""
    asked = []

    def note(recipe, sets, runs, until=None, planned_gpus=None, **ignored):
        asked.append((recipe, sets, until, planned_gpus))
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "make_plan", note)
        answer = CliRunner().invoke(app, words[1:])
    assert isinstance(answer.exception, Parsed), f"{shlex.join(words)}: {answer.output}"
    return asked[0]

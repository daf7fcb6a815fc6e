"""A selection method is added in two files, and a setting of it in three: done here to a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import deita_train

PACKAGE = Path(deita_train.__file__).parent
RULES, SCHEMA, CODE = "selection/settings.py", "recipe/schema.py", "selection/baselines/nearest_length.py"

# Each change: file, the line that stays, and what is written before it.
METHOD_ROW = (
    RULES,
    '    "whole_pool": Method(',
    '    "nearest_length": Method("baselines.nearest_length.nearest_length"),\n',
)
METHOD_CODE = '''"""The conversations whose length is nearest to a given one."""

from deita_train.selection.baselines.ranking import top_rows


def nearest_length(candidates, budget):
    """By the distance of the first message's length from 20 characters."""
    lengths = [len(messages[0]["content"]) for (messages,) in candidates.values("messages")]
    return top_rows(candidates.ids, [-abs(length - TARGET) for length in lengths], budget)
'''
SETTING_ROW = (
    RULES,
    '    "whole_pool": Method(',
    '    "nearest_length": Method("baselines.nearest_length.nearest_length", settings=("target_length",)),\n',
)
SETTING_DEFAULT = (RULES, "    def __post_init__", "    target_length: int = 20\n\n")
SETTING_FIELD = (
    SCHEMA,
    '    seed: Seed | None = None\n    """Seed of `random`',
    '    target_length: Count = SelectionSettings.target_length\n    """Of `nearest_length`."""\n',
)


@pytest.fixture
def copied(tmp_path):
    """A copy of the package, and a pool of first messages with 5, 15, 25, ... 65 characters."""
    shutil.copytree(PACKAGE, tmp_path / "deita_train", ignore=shutil.ignore_patterns("__pycache__"))
    rows = [
        {"id": f"length-{length}", "instruction": "q" * length, "output": "a"} for length in (5, 15, 25, 35, 45, 55, 65)
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def add(folder, code, *changes):
    """Make the changes and write the method's code; the number of files that differ from the package's."""
    for file, before, text in changes:
        path = folder / "deita_train" / file
        old = path.read_text()
        assert old.count(before) == 1, before
        path.write_text(old.replace(before, text + before))
    (folder / "deita_train" / CODE).write_text(code)
    return sum(
        not (PACKAGE / path.relative_to(folder / "deita_train")).exists()
        or (PACKAGE / path.relative_to(folder / "deita_train")).read_bytes() != path.read_bytes()
        for path in (folder / "deita_train").rglob("*.py")
    )


def select(folder, *options):
    command = [sys.executable, "-m", "deita_train.cli", "select", "pool.jsonl", "--budget", "2", "--output"]
    number = len(list(folder.glob("kept-*")))
    answer = subprocess.run(
        [*command, f"kept-{number}.jsonl", "--runs", "runs", *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode:
        return answer.returncode, answer.stderr
    return 0, [json.loads(line)["id"] for line in (folder / f"kept-{number}.jsonl").read_text().splitlines()]


def test_a_method_touches_two_files(copied):
    assert add(copied, METHOD_CODE.replace("TARGET", "20"), METHOD_ROW) == 2
    assert select(copied, "--method", "nearest_length") == (0, ["length-15", "length-25"])


def test_a_setting_touches_three_files(copied):
    code = METHOD_CODE.replace("TARGET", "candidates.settings.target_length")
    assert add(copied, code, SETTING_ROW, SETTING_DEFAULT, SETTING_FIELD) == 3
    stated = ("--set", "select.target_length=58")
    assert select(copied, "--method", "nearest_length", *stated) == (0, ["length-55", "length-65"])
    code, message = select(copied, "--method", "random", *stated)
    assert code == 2
    assert "--set select.target_length: would have no effect with --method random; leave it out." in message

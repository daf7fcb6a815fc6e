"""Runs to report on, each written once; the tests that change one get a copy."""

import os
import shutil

import pytest
from fake_run import write_fake_run
from fake_sweep import write_swept_run

from deita_train.report.figures.figure import Figure
from deita_train.report.page import write_report


@pytest.fixture(scope="session")
def published_run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="session")
def published_sweep(tmp_path_factory):
    return write_swept_run(tmp_path_factory.mktemp("swept"))


@pytest.fixture
def run(published_run, tmp_path):
    """A copy of the fake run that a test may change."""
    return copied(published_run, tmp_path)


@pytest.fixture
def swept(published_sweep, tmp_path):
    """A copy of the sweep that a test may change."""
    return copied(published_sweep, tmp_path / "sweep")


def copied(made, folder):
    """The run's folder and its store; the store's files are links, which `edit_json` replaces."""
    shutil.copytree(made.run_dir, folder / "run")
    shutil.copytree(made.store, folder / "store", copy_function=os.link)
    return folder / "run", folder / "store"


@pytest.fixture(scope="session")
def reports(published_run, published_sweep, tmp_path_factory):
    """The folders of both runs' reports, with every figure drawn."""
    made = {"run": published_run, "swept": published_sweep}
    folders = {name: tmp_path_factory.mktemp(name) for name in made}
    for name, of in made.items():
        shutil.copytree(of.run_dir, folders[name] / "run")
    return {name: write_report(folders[name] / "run", of.store).parent for name, of in made.items()}


@pytest.fixture
def undrawn(monkeypatch):
    """No figure is drawn: for tests of a page's text."""
    monkeypatch.setattr(Figure, "svg", "<svg></svg>")

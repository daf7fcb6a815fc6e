"""Shared by the tests that kill: children that start at once."""

import multiprocessing
from multiprocessing import forkserver

import pytest


@pytest.fixture(scope="module")
def processes():
    """Children forked from a process that has imported everything.

    There is one such process for all of pytest's. It keeps the working folder and the environment in which it started,
    so it must not outlive these tests.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deita_train.stages.preload"])
    forkserver._forkserver._stop()
    yield context
    forkserver._forkserver._stop()

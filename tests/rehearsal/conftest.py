"""Where rehearsals are tried: a machine without a Hub and without GPUs, with files of the user's own."""

import pytest
from rehearsal_parts import write_own_files


@pytest.fixture
def offline(monkeypatch):
    """No network, on a machine without GPUs."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """The working folder with the user's own files."""
    write_own_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path

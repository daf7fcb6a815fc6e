"""A real small chat model behind `transformers serve`: nothing breaks, and every drop has its reason.

    pip install 'transformers[serving]'
    DEITA_CHAT_MODEL=path/to/SmolLM2-135M-Instruct make test-faults

The server may be that of another environment: DEITA_SERVING_PYTHON names its python.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import datasets
import pytest
from smoke_run import ROOT, command_here, stages

from deita_train.store.atomic_io import read_json

SEEDS, EVOLUTIONS = 20, 5
# Slow on a CPU: some hundred answers of 160 tokens.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def model():
    folder = os.environ.get("DEITA_CHAT_MODEL")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DEITA_CHAT_MODEL names no folder with a small chat model")
    return folder


@contextmanager
def served(model):
    """The address of `transformers serve` with the model."""
    python = os.environ.get("DEITA_SERVING_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import fastapi, uvicorn"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} cannot serve; pip install 'transformers[serving]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        python, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu", "--dtype", "float32",
        "--continuous-batching", "--cb-block-size", "64", "--cb-num-blocks", "400", "--cb-max-batch-tokens", "1024",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def wait_for(address, server):
    deadline = time.monotonic() + 300
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)


def test_a_real_server_from_seeds_to_the_scorer_of_the_quickstart(tmp_path, model):
    runs = tmp_path / "runs"
    with served(model) as url:
        settings = (
            f"llm={{judge: {{base_url: {url}, model: {model}, max_in_flight: 16}}}}",
            "evolve={seeds: {builtin: quickstart, rows: 20}, llm: judge, complexity: {max_tokens: 160}}",
            "evolve.heldout_share=0",
            "scorers.complexity.train.data=evolve",
        )
        sets = [part for setting in settings for part in ("--set", setting)]
        until = ("--until", "train_scorer.complexity")
        command_here("run", str(ROOT / "recipes" / "quickstart.yaml"), "--runs", str(runs), *until, *sets)
    made = {label: runs / "store" / artefact for label, artefact in stages(runs, "quickstart").items()}
    labels = datasets.load_from_disk(str(made["rank.complexity"] / "data"))
    evolved = read_json(made["evolve.complexity"] / "metrics.json")
    assert (evolved["seeds"], evolved["evolutions"]) == (SEEDS, SEEDS * EVOLUTIONS)
    assert evolved["kept"] + sum(evolved["drops"].values()) == SEEDS * EVOLUTIONS
    assert evolved["spending"]["failures"] == {} and evolved["spending"]["answers_with_estimated_tokens"] == 0
    ranked = read_json(made["rank.complexity"] / "metrics.json")
    assert ranked["seeds_ranked"] + sum(ranked["seeds_dropped"].values()) == SEEDS
    trained = read_json(made["train_scorer.complexity"] / "metrics.json")
    assert 0 < trained["train_rows"] == len(labels) == sum(ranked["scores"].values())
    assert trained["heldout"]["rows"] == 300

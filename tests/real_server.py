"""A real small chat model behind `transformers serve`, for the tests that ask one.

The model's folder is DEITA_CHAT_MODEL; the server may be that of another environment: DEITA_SERVING_PYTHON names its
python.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def chat_model() -> str:
    """The model's folder; the test is skipped where there is none."""
    folder = os.environ.get("DEITA_CHAT_MODEL")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DEITA_CHAT_MODEL names no folder with a small chat model")
    return folder


@contextmanager
def served(model: str) -> Iterator[str]:
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
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 300
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)

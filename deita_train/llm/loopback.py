"""A server on loopback in place of a chat model: it speaks OpenAI's protocol, costs nothing and knows nothing.

Its answers have the form that each of the package's prompts asks for, and FastChat's; what they say is drawn by the
prompt. For rehearsals, which ask through the same client as a real run.
"""

import hashlib
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FENCE = re.compile(r"^={12,}$", re.MULTILINE)
_NUMBERED = re.compile(r"^\[(\d+)\]$", re.MULTILINE)
_LETTERS = ("A", "B")
# AlpacaEval's published prompts call the outputs m and M.
_ALPACA_LETTERS = ("m", "M")
_CHARACTERS_OF_A_TOKEN = 4


def loopback_reply(prompt: str) -> str:
    """An answer in the form that a prompt asks for; plain words where it asks for none that is known."""
    drawn = random.Random(hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest())
    for wanted, answer in _FORMS:
        if wanted.search(prompt):
            return answer(prompt, drawn)
    return "This is the answer of a rehearsal."


def _scores(prompt: str, drawn: random.Random) -> str:
    """A score for each numbered text, not all the same."""
    numbers = _NUMBERED.findall(prompt)
    first = drawn.randint(1, 6)
    return json.dumps({number: (first + place) % 6 + 1 for place, number in enumerate(numbers)})


def _evolved(prompt: str, drawn: random.Random) -> str:
    """The last text between fences with a few more words, so that it differs from the one before it."""
    texts = _FENCE.split(prompt)[1::2]
    text = texts[-1].strip() if texts else "Say hello."
    return f"<evolved>{text} Name {drawn.randint(2, 999)} more of its details, with reasons.</evolved>"


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str, random.Random], str]], ...] = (
    (re.compile(r"<evolved>"), _evolved),
    (re.compile(r'"tags"'), lambda _, drawn: json.dumps({"tags": drawn.sample(["lists", "sums", "names", "days"], 2)})),
    (re.compile(r"\[\[A\]\]"), lambda _, drawn: f"Both were read. [[{drawn.choice('ABC')}]]"),
    (re.compile(r"\[\[(?:rating|\d+)\]\]", re.IGNORECASE), lambda _, drawn: f"Rating: [[{drawn.randint(1, 10)}]]"),
    (re.compile(r"^\[\d+\]$.*JSON", re.MULTILINE | re.DOTALL), _scores),
    (re.compile(r'"score"'), lambda _, drawn: json.dumps({"score": drawn.randint(1, 6)})),
    (re.compile(r"\bm\b.*\bM\b", re.DOTALL), lambda _, drawn: drawn.choice(_ALPACA_LETTERS)),
    (re.compile(r"one letter, A or B"), lambda _, drawn: drawn.choice(_LETTERS)),
)


class _Handler(BaseHTTPRequestHandler):
    """Answers chat completions."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One request, one answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(_completion(asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the client counts its requests."""


def _completion(asked: dict[str, Any]) -> dict[str, Any]:
    """The body of an answer, with probabilities of its first token where they are asked for."""
    prompt = "\n".join(str(message.get("content")) for message in asked["messages"])
    text = loopback_reply(prompt)
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    if asked.get("logprobs"):
        others = _ALPACA_LETTERS if text in _ALPACA_LETTERS else _LETTERS
        first = [{"token": token, "logprob": -0.2 if token == text else -1.7, "bytes": None} for token in others]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.2, "bytes": None, "top_logprobs": first}]}
    used = [len(part) // _CHARACTERS_OF_A_TOKEN + 1 for part in (prompt, text)]
    usage = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}
    return {
        "id": "rehearsal", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice],
        "usage": usage,
    }  # fmt: skip


@contextmanager
def loopback_server() -> Iterator[str]:
    """Serve on a free port of loopback; yields the address for `base_url:`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

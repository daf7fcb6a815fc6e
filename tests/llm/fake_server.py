"""A server on loopback that speaks OpenAI's protocol over plain sockets, and misbehaves where a test says so.

    with FakeServer(lambda body: body["messages"][-1]["content"].upper()) as server:
        endpoint = Endpoint("judge", "model", base_url=server.url)

It answers in a thread of its own, so that the test can ask in another thread or process.
"""

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass(frozen=True)
class Reply:
    """What is sent for a request, and how.

    Attributes:
        body: an object is sent as JSON, a text as it is.
        status: of HTTP.
        headers: besides the usual ones.
        cut_after: the connection ends after so many bytes of the body.
        bytes_per_second: sends the body one byte at a time.
        delay: seconds before anything is sent.
        silent: nothing is ever sent.
    """

    body: object = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    bytes_per_second: float | None = None
    delay: float = 0.0
    silent: bool = False


def completion(text, finish_reason="stop", usage=(11, 7), **message):
    """The body of a good answer; `usage` None leaves out the numbers of tokens."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
        ],
    }
    if usage is not None:
        prompt, answer = usage
        body["usage"] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return body


def error(status, message="as the test says", code=None, **headers):
    """A refusal as OpenAI words it; headers with `_` for `-`."""
    body = {"error": {"message": message, "type": "test", "code": code, "param": None}}
    return Reply(body, status, {name.replace("_", "-"): str(value) for name, value in headers.items()})


# Misbehaviours by name, each for one request.
MISBEHAVIOURS = {
    "429": error(429),
    "429_retry_after": error(429, retry_after=0),
    "500": error(500),
    "503_html": Reply("<html><body>Service Unavailable</body></html>", 503, {"Content-Type": "text/html"}),
    "hang_up_at_once": Reply(completion("never seen"), cut_after=0),
    "hang_up_in_body": Reply(completion("never seen whole"), cut_after=60),
    "broken_json": Reply('{"choices": [{"message": {"content": "half an'),
    "html_with_200": Reply("<html>Welcome to our proxy</html>", headers={"Content-Type": "text/html"}),
    "choices_null": Reply({"id": "x", "choices": None}),
    "choices_empty": Reply({"id": "x", "choices": []}),
    "error_with_200": Reply({"error": {"message": "overloaded"}}),
    "empty": Reply(completion("")),
    "null_content": Reply(completion(None)),
    "list": Reply([1, 2]),
    "no_message": Reply({"choices": [{"index": 0}]}),
}
SILENCE = Reply(silent=True)
DRIP = 2000.0  # bytes per second, for Reply(..., bytes_per_second=DRIP)


class FakeServer:
    """Answers chat requests by a function of their body.

    Args:
        answer: gives the text, the whole body, or a `Reply`, for a request's body.
        misbehave: may give a `Reply` instead, for a request's body and how often this body has come (from 1).
        delay: seconds before each answer.
        keep: what is kept of each body.

    Attributes:
        requests: the bodies that came, in their order, or what is kept of them.
        headers: of the requests, with lower-case names.
        most_at_once: the most requests that waited for their answers at the same time.
        sent: how many good answers were sent completely.
        moments: when each request came, by time.monotonic.
    """

    def __init__(self, answer, misbehave=None, delay=0.0, keep=lambda body: body):
        self._answer = answer
        self._misbehave = misbehave or (lambda body, times: None)
        self._delay = delay
        self._keep = keep
        self.requests = []
        self.headers = []
        self.moments = []
        self.most_at_once = 0
        self.sent = 0
        self._at_once = 0
        self._connections = set()
        self._times = Counter()
        self._taking: asyncio.Event | None = None
        self._take_at_most: int | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def take_at_most(self, number):
        """Read no further request after so many in all, until this is called again; None for no bound."""
        self._take_at_most = number
        self._loop.call_soon_threadsafe(self._let_in)

    def drop_connections(self):
        """Hang up, and never look at what has been sent but not read; as if it had not arrived."""
        asyncio.run_coroutine_threadsafe(self._drop_connections(), self._loop).result(10)

    async def _drop_connections(self):
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def wait_for(self, condition, seconds=30.0):
        """Wait until the server's numbers are so."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, f"{len(self.requests)} requests came, {self.sent} were answered"
            time.sleep(0.002)

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._taking = asyncio.Event()
        self._let_in()
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1000))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _let_in(self):
        if self._take_at_most is None or len(self.requests) < self._take_at_most:
            self._taking.set()
        else:
            self._taking.clear()

    async def _connected(self, reader, writer):
        self._connections.add(asyncio.current_task())
        try:
            while await self._take_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(asyncio.current_task())
            writer.close()

    async def _take_one(self, reader, writer):
        """Whether the connection goes on."""
        await self._turn()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"null")
        await self._turn()
        times = self._note(body, headers)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._reply(lines[0], body, times, writer)
        finally:
            self._at_once -= 1

    async def _turn(self):
        while not self._taking.is_set():
            await self._taking.wait()

    def _note(self, body, headers):
        """How often this body has come."""
        self.requests.append(self._keep(body))
        self.headers.append(headers)
        self.moments.append(time.monotonic())
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        self._times[digest] += 1
        self._let_in()
        return self._times[digest]

    async def _reply(self, request_line, body, times, writer):
        if not request_line.startswith("POST /v1/chat/completions "):
            await _send(writer, error(404, "no such address"))
            return True
        reply = self._misbehave(body, times)
        is_good = reply is None
        if is_good:
            given = self._answer(body)
            given = completion(given) if isinstance(given, str) else given
            reply = given if isinstance(given, Reply) else Reply(given)
        await asyncio.sleep(self._delay + reply.delay)
        if reply.silent:
            await asyncio.Event().wait()
        await _send(writer, reply)
        self.sent += is_good
        return reply.cut_after is None


async def _send(writer, reply):
    content = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
    headers = {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n{head}\r\n".encode())
    content = content if reply.cut_after is None else content[: reply.cut_after]
    if reply.bytes_per_second is None:
        writer.write(content)
    else:
        for byte in content:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1 / reply.bytes_per_second)
    await writer.drain()

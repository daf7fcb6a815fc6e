"""The process that logs one stage to wandb, trackio or TensorBoard: messages in on stdin until the stage has ended.

A message is a JSON object on a line. The first one holds what the run begins with; then come `log`, `summary` and at
last `exit_code`. An exception is written once to the stage's log and ends the logging. When the stage dies, this
process ends at once, together with the processes that wandb started.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from deita_train.run.child.logged_runs import RUNS

_WATCH_SECONDS = 0.2


def say(service: str, text: str) -> None:
    """One line in the stage's log, if the disk takes it."""
    with suppress(OSError):
        sys.stderr.write(f"{service}: {' '.join(text.split())}\n")
        sys.stderr.flush()


def serve(service: str, messages: "SimpleQueue[dict[str, Any]]") -> None:
    """Begin the run, log what comes, finish it. Raises what the service raises."""
    run = RUNS[service](messages.get(), partial(say, service))
    while True:
        message = messages.get()
        if "log" in message:
            run.log(message["log"])
        if "summary" in message:
            run.summarize(message["summary"])
        if "exit_code" in message:
            run.finish(message["exit_code"])
            return


def _receive(messages: "SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        messages.put(json.loads(line))
    end(1)  # the stage has ended, or has given up waiting


def _watch(stage: int) -> None:
    """End with the stage, whose workers may hold the pipe open for seconds after its death."""
    while os.getppid() == stage:
        time.sleep(_WATCH_SECONDS)
    end(1)


def end(code: int) -> None:
    """End at once, bypassing wandb, and kill its service with everything that it started."""
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                os.killpg(int(child), signal.SIGKILL)  # wandb makes its service the leader of a group
    os._exit(code)


def main() -> None:
    """Serve the stage that started this process, for the service that the command line names."""
    service = sys.argv[1]
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    threading.Thread(target=_receive, args=(messages,), daemon=True).start()
    try:
        serve(service, messages)
    except BaseException as error:
        say(service, f"logging is off for this stage: {type(error).__name__}: {error}")
    end(0)


if __name__ == "__main__":
    main()

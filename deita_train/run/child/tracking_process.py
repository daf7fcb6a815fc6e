"""The process that logs one stage to wandb: messages in on stdin, one JSON object a line, until the stage has ended.

The first message holds the arguments of `wandb.init`; then come `log`, `summary` and at last `exit_code`. An exception
is written once to the stage's log and ends the logging. When the stage dies, this process ends at once, together with
the processes that wandb started.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

_INIT_SECONDS, _FINISH_SECONDS = 10.0, 15.0
_WATCH_SECONDS = 0.2


def say(text: str) -> None:
    """One line in the stage's log, if the disk takes it."""
    with suppress(OSError):
        sys.stderr.write(f"wandb: {' '.join(text.split())}\n")
        sys.stderr.flush()


def serve(messages: "SimpleQueue[dict[str, Any]]") -> None:
    """Begin the run, log what comes, finish it. Raises what wandb raises."""
    import wandb

    run = _begin(messages.get())
    while True:
        message = messages.get()
        if "log" in message:
            run.log(message["log"])
        if "summary" in message:
            run.summary.update(message["summary"])
        if "exit_code" in message:
            run.finish(exit_code=message["exit_code"])
            wandb.teardown()
            return


def _begin(arguments: Mapping[str, Any]) -> Any:
    from wandb.errors import AuthenticationError, UsageError

    try:
        run = _init(arguments)
    except (AuthenticationError, UsageError) as error:
        if arguments["mode"] == "offline":
            raise
        say(f"{error} This stage is logged offline instead; to log online, use `wandb login` before the run.")
        run = _init({**arguments, "mode": "offline"})
    say(f"logged at {run.url}" if run.url else f"logged offline; `wandb sync {Path(run.dir).parent}` uploads it.")
    # A resumed training repeats the steps after its last checkpoint; as the runs' own counter, steps cannot repeat.
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def _init(arguments: Mapping[str, Any]) -> Any:
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=_FINISH_SECONDS,
        init_timeout=_INIT_SECONDS,
        save_code=False,
        silent=True,
        stop_fn=lambda: say("ignored the stop requested in the browser: wandb only logs here, and the stage goes on."),
    )
    return wandb.init(**arguments, resume="allow", settings=settings)


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
    """Serve the stage that started this process."""
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    threading.Thread(target=_receive, args=(messages,), daemon=True).start()
    try:
        serve(messages)
    except BaseException as error:
        say(f"logging is off for this stage: {type(error).__name__}: {error}")
    end(0)


if __name__ == "__main__":
    main()

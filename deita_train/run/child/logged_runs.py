"""One run of a stage in wandb, trackio or TensorBoard, as the logging process fills it. Any of them may raise anything.

Each is imported when its run begins; the stage itself imports none.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

Say = Callable[[str], None]
_INIT_SECONDS, _FINISH_SECONDS = 10.0, 15.0
# Of the final metrics: the training steps, at the last of which they stand where there is no summary.
_STEPS = "final/steps"


class LoggedRun(Protocol):
    """What the logging process does with a run."""

    def log(self, values: dict[str, Any]) -> None:
        """Log the values of one step, the key `step` among them."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final metrics, numbers and texts."""

    def finish(self, exit_code: int) -> None:
        """End the run; 0 is a stage that did its work."""


class WandbRun:
    """A run of wandb, offline where online is refused."""

    def __init__(self, arguments: Mapping[str, Any], say: Say) -> None:
        from wandb.errors import AuthenticationError, UsageError

        self._say = say
        try:
            run = self._init(arguments)
        except (AuthenticationError, UsageError) as error:
            if arguments["mode"] == "offline":
                raise
            say(f"{error} This stage is logged offline instead; to log online, use `wandb login` before the run.")
            run = self._init({**arguments, "mode": "offline"})
        say(f"logged at {run.url}" if run.url else f"logged offline; `wandb sync {Path(run.dir).parent}` uploads it.")
        # A resumed training repeats the steps after its last checkpoint; as the runs' own counter, steps cannot repeat.
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        self._run = run

    def log(self, values: dict[str, Any]) -> None:
        """Log one line of the history."""
        self._run.log(values)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Fill the summary."""
        self._run.summary.update(values)

    def finish(self, exit_code: int) -> None:
        """End the run, and wandb's service."""
        import wandb

        self._run.finish(exit_code=exit_code)
        wandb.teardown()

    def _init(self, arguments: Mapping[str, Any]) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout=_FINISH_SECONDS,
            init_timeout=_INIT_SECONDS,
            save_code=False,
            silent=True,
            stop_fn=lambda: self._say(
                "ignored the stop requested in the browser: wandb only logs here, and the stage goes on."
            ),
        )
        return wandb.init(**arguments, resume="allow", settings=settings)


class TensorboardRun:
    """Event files in a folder. What an earlier attempt logged from the first step of this one on is hidden."""

    def __init__(self, arguments: Mapping[str, Any], say: Say) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._new_writer, self._folder, self._step = SummaryWriter, arguments["folder"], 0
        self._config = json.dumps(arguments["config"], indent=1, ensure_ascii=False, default=str)
        self._writer: Any = None
        say(f"logged to {self._folder}; `tensorboard --logdir {shlex.quote(arguments['logdir'])}` shows it.")

    def log(self, values: dict[str, Any]) -> None:
        """Add a point to each curve."""
        self._step = values["step"]
        self._write({name: value for name, value in values.items() if name != "step"}, purge_step=self._step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add what is final at the last step; the process that publishes a stage has logged no step itself."""
        self._step = self._step or int(values.get(_STEPS, 0))
        self._write(values, purge_step=None)

    def finish(self, exit_code: int) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, values: Mapping[str, Any], purge_step: int | None) -> None:
        if self._writer is None:
            self._writer = self._new_writer(log_dir=self._folder, purge_step=purge_step)
            self._writer.add_text("config", f"```json\n{self._config}\n```", global_step=self._step)
        for name, value in values.items():
            add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
            add(name, value, global_step=self._step)
        self._writer.flush()


class TrackioRun:
    """A run of trackio, which keeps it on this machine unless its own variables say otherwise."""

    def __init__(self, arguments: Mapping[str, Any], say: Say) -> None:
        import trackio

        self._run, self._step = trackio.init(**arguments, resume="allow", embed=False), 0
        say(f"logged as {arguments['name']!r}; `trackio show --project {shlex.quote(arguments['project'])}` shows it.")

    def log(self, values: dict[str, Any]) -> None:
        """Log the values of one step."""
        self._step = values["step"]
        self._run.log({name: value for name, value in values.items() if name != "step"}, step=self._step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log what is final at the last step."""
        self._step = self._step or int(values.get(_STEPS, 0))
        self._run.log(dict(values), step=self._step)

    def finish(self, exit_code: int) -> None:
        """Wait for what is still to be written."""
        self._run.finish()


RUNS: Mapping[str, Callable[[Mapping[str, Any], Say], LoggedRun]] = {
    "wandb": WandbRun,
    "tensorboard": TensorboardRun,
    "trackio": TrackioRun,
}

"""What stages were expected to cost, and what they took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_train.number_text import ABSENT, compact, duration, share, significant
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.table import Table, numbers, words

_NOTE = (
    "Tokens and memory as `deita-train plan` counted them before the run (~ estimated, < at most), and as measured. "
    "Memory is that of one process: on a GPU its tensors' peak, on a CPU the whole process with its libraries, so that "
    "small models take far more than planned. That of a pass is planned for the smallest batch, and not measured. "
    "Speed is of all ranks, over the seconds of computing; MFU is there on known GPUs only."
)


def cost_table(summary: RunSummary) -> Table | None:
    """A row for each artefact whose cost was planned and that measured its work; None where there is none."""
    rows = [
        (label, *_values(item, summary.planned_costs[item.id]))
        for label, item in summary.artefacts().values()
        if item.id in summary.planned_costs and measured_tokens(item) is not None
    ]
    if not rows:
        return None
    columns = (
        *words("stage"),
        *numbers("tokens planned", "tokens", "wall time", "tokens/s", "MFU", "GB planned", "GB"),
    )
    return Table(columns, tuple(rows), note=_NOTE)


def measured_tokens(item: Artefact) -> float | None:
    """The tokens that a stage has computed, over all epochs of a training; None where it did not count them."""
    metrics = item.metrics
    if "train_tokens" not in metrics:
        tokens: float | None = metrics.get("tokens")
        return tokens
    trainer = item.manifest["config"].get("trainer", {})
    steps = trainer.get("max_steps") or 0
    if steps > 0:
        epochs = steps * item.manifest["config"]["global_batch_size"] / max(1, metrics["train_rows"])
    else:
        epochs = trainer.get("num_train_epochs", 3)
    return float(metrics["train_tokens"] * epochs)


def _values(item: Artefact, planned: Mapping[str, Any]) -> tuple[str, ...]:
    tokens = measured_tokens(item)
    assert tokens is not None
    metrics = item.metrics
    each = metrics.get("tokens_per_second_per_device")
    rate = metrics.get("tokens_per_second") if each is None else each * item.manifest["world_size"]
    memory = metrics.get("memory_gib")
    return (
        f"{'<' if planned['at_most'] else '~' if planned['sampled'] else ''}{compact(planned['tokens'])}",
        compact(tokens),
        duration(item.manifest["wall_seconds"]),
        ABSENT if rate is None else compact(rate),
        share(metrics.get("mfu")),
        ABSENT if planned["memory"] is None else significant(planned["memory"] / 1e9),
        ABSENT if memory is None else significant(memory * 2**30 / 1e9),
    )
